"""The demos' checkpoints: written once, where the user can look at them and delete them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from llmtrap.demo import write_demo_checkpoint
from llmtrap.demo.manifest import MANIFEST_NAME, DemoManifest, PlantedTrap
from llmtrap.errors import UsageError
from llmtrap.report.document import Matrix, Report
from llmtrap.report.write import make_folder

DEMOS = ("gpt-oss", "grokking")


def demo_target(name: str | None, console: Console, *, quiet: bool) -> str:
    """Write the demo checkpoint of this name, gpt-oss where there is none, and return its folder.

    Raises:
        UsageError: there is no demo of this name.
        OutputError: the folder cannot be written.
    """
    if name not in (None, *DEMOS):
        raise UsageError(f"there is no demo '{name}'", remedy=f"Demos: {', '.join(DEMOS)}")
    folder = Path("llmtrap-demo") / (name or DEMOS[0])
    make_folder(folder, within=Path())
    told = _grokking(folder) if name == "grokking" else _gpt_oss(folder)
    if told and not quiet:
        console.print(f"made {folder}: {told}", soft_wrap=True)
    return str(folder)


def planted_found(folder: Path, report: Report) -> str | None:
    """How many of the planted traps an audit found, where they are; None for a demo without any.

    Args:
        folder: the demo's checkpoint.
        report: an audit of it.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return None
    planted = DemoManifest.read(folder).traps
    measured = {matrix.id: matrix for matrix in report.matrices}
    found = sum(_is_found(trap, measured.get(trap.matrix)) for trap in planted)
    return f"{found} of {len(planted)} planted traps found"


def _is_found(trap: PlantedTrap, matrix: Matrix | None) -> bool:
    """Whether one of the matrix' traps has the cause that was planted, and an entry's place."""
    causes = [] if matrix is None or matrix.traps is None else [found.cause for found in matrix.traps.found]
    return any((cause.kind, cause.row, cause.column) == (trap.cause, trap.row, trap.column) for cause in causes)


def _gpt_oss(folder: Path) -> str | None:
    if (folder / MANIFEST_NAME).is_file():
        return None
    manifest = write_demo_checkpoint(folder)
    return f"a small GPT-OSS with {len(manifest.traps)} planted traps"


def _grokking(folder: Path) -> str | None:
    from llmtrap.calibrate.demo import DEMO_FILE, write_grokking_demo

    if (folder / DEMO_FILE).is_file():
        return None
    return f"one small network in three phases of its training ({write_grokking_demo(folder)})"
