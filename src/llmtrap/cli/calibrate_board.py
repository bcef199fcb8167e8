"""What `llmtrap calibrate` shows: its runs while they train, and what they found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from llmtrap.calibrate import CalibrationReport, RunEvent
from llmtrap.printable import printable


class Board:
    """A bar a run with its accuracies; plain lines, one a finished run, where there is no terminal."""

    def __init__(self, console: Console):
        self._console = console
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._accuracies: dict[str, str] = {}

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[accuracies]}", markup=False),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def hear(self, event: RunEvent) -> None:
        """Show one sign of life."""
        if event.train_accuracy is not None and event.test_accuracy is not None:
            self._accuracies[event.name] = f"train {event.train_accuracy:.3f}  test {event.test_accuracy:.3f}"
        seen = self._accuracies.get(event.name, "")
        if self._progress is None:
            if event.finished:
                self._console.print(f"{event.name}: {event.steps:,} steps, {seen}")
            return
        if event.name not in self._bars:
            self._bars[event.name] = self._progress.add_task(event.name, total=event.steps, accuracies="")
        self._progress.update(self._bars[event.name], completed=event.step, accuracies=seen)


def show(report: CalibrationReport, folder: Path, console: Console) -> None:
    """The rules, the conclusions, and where the report is."""
    if report.checks:
        table = Table("arm", "seed", "rule", "found", "met", box=None, pad_edge=False)
        for check in report.checks:
            mark = Text("yes", "green") if check.passed else Text("no", "red")
            table.add_row(Text(check.arm), str(check.seed), Text(check.rule), Text(check.found), mark)
        console.print(table)
    for sentence in report.conclusions:
        console.print(f"- {sentence}")
    for failed in report.failed:
        console.print(f"Failed: {printable(failed.name)}: {printable(failed.error)}")
    console.print(f"Report: {printable(str(folder / 'report.html'))}", soft_wrap=True)
