"""The outputs of a report that a command writes: which and where, tried before the work, written after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from llmtrap.cli.console import messages, output
from llmtrap.cli.report_folder import free_folder
from llmtrap.errors import UsageError
from llmtrap.printable import printable
from llmtrap.report.document import Report
from llmtrap.report.outputs import REPORT_OUTPUTS
from llmtrap.report.text import show
from llmtrap.report.trial import try_writing
from llmtrap.report.write import write_whole

STANDARD_OUTPUT = Path("-")


def check_places(places: Mapping[str, Path | None]) -> None:
    """Try the files that options name, by the options' names, before anything is measured.

    Raises:
        UsageError: two are to be standard output, or one file.
        OutputError: one cannot be written.
    """
    seen: dict[Path, str] = {}
    for option, path in places.items():
        if path is None:
            continue
        place = path if path == STANDARD_OUTPUT else path.absolute()
        if place in seen:
            what = "standard output" if path == STANDARD_OUTPUT else printable(str(path), 160)
            raise UsageError(f"{seen[place]} and {option} both name {what}", remedy="Name a file for one of them")
        seen[place] = option
        if path != STANDARD_OUTPUT:
            try_writing(path)


@dataclass(frozen=True)
class ReportOutputs:
    """Where each output goes, by its name in `REPORT_OUTPUTS`; `folder` is used where none is named."""

    places: dict[str, Path]
    folder: Path

    @classmethod
    def of(cls, folder: Path, **places: Path | None) -> ReportOutputs:
        """From the options of a command, with their names (`model_card` for `--model-card`), each place tried.

        Raises:
            UsageError: two outputs go to one place.
            OutputError: a place cannot be written.
        """
        named = {name.replace("_", "-"): path for name, path in places.items() if path is not None}
        check_places({f"--{name}": path for name, path in named.items()} or {"": folder / "report.json"})
        return cls(named, folder)

    @property
    def piped(self) -> str | None:
        """The output that goes to standard output."""
        return next((name for name, path in self.places.items() if path == STANDARD_OUTPUT), None)

    def write(self, report: Report, *, quiet: bool) -> None:
        """Write the outputs named, or the usual ones to the default folder, and show the closing table.

        Where an output goes to standard output nothing else does, so that a program can read it.
        """
        places, within = {name: path for name, path in self.places.items() if path != STANDARD_OUTPUT}, None
        if not self.places:
            folder = free_folder(self.folder, report)
            places = {
                name: folder / output.default for name, output in REPORT_OUTPUTS.items() if output.default is not None
            }
            # Nobody typed this place, and the current folder may be a stranger's repository.
            within = Path()
        for name, path in places.items():
            write_whole(path, REPORT_OUTPUTS[name].write(report).encode("utf-8", "backslashreplace"), within=within)
        if self.piped is not None:
            typer.echo(REPORT_OUTPUTS[self.piped].write(report), nl=False)
        elif not quiet:
            show(report, output())
        if places and not quiet:
            messages().print("written: " + ", ".join(printable(str(path)) for path in places.values()), soft_wrap=True)
