"""What `trajectory` and `watch` share: the table of a run's checkpoints as it grows, its files, its settings.

The table: a line each on standard output, progress on standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmtrap.audit import AuditSettings, Event, RunOptions
from llmtrap.audit.progress import AuditProgress
from llmtrap.cli import options as o
from llmtrap.cli.console import messages, output
from llmtrap.cli.report_folder import default_report_folder
from llmtrap.cli.report_outputs import STANDARD_OUTPUT, check_places
from llmtrap.printable import printable
from llmtrap.report.document import Report
from llmtrap.trajectory.document import Point, Trajectory, TrapHistory
from llmtrap.trajectory.formatting import cause_words, point_row
from llmtrap.trajectory.page import to_html, write_page
from llmtrap.trajectory.write import to_json, write_trajectory

HEADS = ("step", "measured", "same", "traps", "new", "median α", "verdict")
_WIDTHS = (12, 8, 6, 6, 5, 8)
MOST_NAMED = 8


class PointTable:
    """Prints the head once and a line a checkpoint. `quiet` prints nothing but what is wrong."""

    def __init__(self, workers: int, *, quiet: bool):
        self._workers, self._quiet = workers, quiet
        self._progress: AuditProgress | None = None
        self._began = False

    @contextmanager
    def shown(self) -> Iterator[PointTable]:
        """The table is there while the block runs."""
        yield self

    @contextmanager
    def live(self, name: str) -> Iterator[PointTable]:
        """Show the progress of one checkpoint while the block runs."""
        self.say(f"{printable(name, 100)}:")
        self._progress = AuditProgress(messages(), self._workers, quiet=self._quiet)
        with self._progress.live():
            yield self

    def show(self, event: Event) -> None:
        """Take one event of the audit into account."""
        if self._progress is not None:
            self._progress.show(event)

    def add(self, point: Point, report: Report) -> None:
        """Print a checkpoint's line, and the matrices with new traps under it."""
        if self._quiet:
            return
        if not self._began:
            self._line(HEADS)
            self._began = True
        row = point_row(point, report)
        self._line((row.label, row.measured, row.unchanged, row.traps, row.new, row.alpha, row.verdict))
        for name in (point.new_traps or ())[:MOST_NAMED]:
            output().print(f"{'':>{_WIDTHS[0]}}  {new_trap_words(name, report)}", soft_wrap=True)

    def say(self, words: str) -> None:
        """A line on standard error."""
        if not self._quiet:
            messages().print(printable(words), soft_wrap=True)

    def wait(self, words: str) -> None:
        """Say what is waited for."""
        self.say(words)

    def _line(self, cells: tuple[str, ...]) -> None:
        shown = [f"{printable(cells[0], 40):>{_WIDTHS[0]}}"]
        shown += [f"{cell:>{width}}" for cell, width in zip(cells[1:-1], _WIDTHS[1:], strict=True)]
        output().print("  ".join([*shown, cells[-1]]), soft_wrap=True)


def point_table(workers: int, *, quiet: bool, piped: bool = False) -> PointTable:
    """The table that fits where it is shown: one that is drawn anew on a terminal, lines in a pipe.

    Args:
        workers: for the time that is left.
        quiet: show nothing.
        piped: standard output is something else's.
    """
    if quiet or piped or not output().is_terminal:
        return PointTable(workers, quiet=quiet or piped)
    from llmtrap.cli.live_points import LiveTable

    return LiveTable(workers, quiet=quiet)


def new_trap_words(name: str, report: Report) -> str:
    """`new trap in layers.3.mlp.up: entry [7, 11]`."""
    traps = next(matrix for matrix in report.matrices if matrix.id == name).traps
    causes = ", ".join(cause_words(trap.cause) for trap in (traps.found if traps is not None else ())[:3])
    return f"new trap in {printable(name, 80)}: {causes}"


def run_of(workers: int | None) -> RunOptions:
    """How the checkpoints of a run are audited: the workers in processes of their own."""
    return RunOptions(isolated=True) if workers is None else RunOptions(workers=workers, isolated=True)


def appearances(traps: tuple[TrapHistory, ...], points: tuple[Point, ...], limit: int = 10) -> list[str]:
    """The traps that appeared after the first point, the earliest first, in a line each."""
    later = [trap for trap in traps if trap.first > 0 and trap.kind != "mean_shift"]
    lines = []
    for trap in later[:limit]:
        end = f", gone after {printable(points[trap.last].label, 40)}" if trap.gone else ""
        grown = f", × {trap.growth:.2f} since" if trap.growth is not None and len(trap.at) > 1 else ""
        name = f"{printable(trap.matrix, 80)} {cause_words(trap)}"
        lines.append(f"{name}: first at {printable(points[trap.first].label, 40)}{grown}{end}")
    if len(later) > limit:
        lines.append(f"{len(later) - limit:,} more in the page")
    return lines


class Places:
    """Where a trajectory is written: the files asked for, or both outputs in the default folder of the run."""

    def __init__(self, name: str, kind: str, json: Path | None, html: Path | None):
        self.within: Path | None = None
        if json is None and html is None:
            folder = default_report_folder(name, kind)
            json, html = folder / "trajectory.json", folder / "trajectory.html"
            # Nobody typed this place, and the current folder may be a stranger's repository.
            self.within = Path()
        self.json, self.html = json, html
        check_places({"--json": json, "--html": html})

    @property
    def piped(self) -> bool:
        """Whether an output goes to standard output."""
        return STANDARD_OUTPUT in (self.json, self.html)

    def write(self, trajectory: Trajectory) -> list[Path]:
        """Write the files; `-` is left to `text`."""
        written = []
        if self.json is not None and self.json != STANDARD_OUTPUT:
            write_trajectory(trajectory, self.json, within=self.within)
            written.append(self.json)
        if self.html is not None and self.html != STANDARD_OUTPUT:
            write_page(trajectory, self.html, within=self.within)
            written.append(self.html)
        return written

    def text(self, trajectory: Trajectory) -> str:
        """What goes to standard output."""
        return to_json(trajectory) if self.json == STANDARD_OUTPUT else to_html(trajectory)


def settings_of(
    *,
    traps: o.TrapModeName,
    trap_rule: o.TrapRuleName,
    no_alpha: bool,
    include: list[str] | None,
    exclude: list[str] | None,
    shuffles: int,
    seed: int,
    device: str,
    backend: o.BackendName,
) -> AuditSettings:
    """The audit's settings from the options."""
    return AuditSettings(
        traps=traps.value, trap_rule=trap_rule.value, alpha=not no_alpha, include=tuple(include or ()),
        exclude=tuple(exclude or ()), shuffles=shuffles, seed=seed, device=device, backend=backend.value,
    )  # fmt: skip
