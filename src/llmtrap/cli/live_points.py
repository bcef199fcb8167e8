"""The table of a run's checkpoints on a terminal: drawn anew as it grows, with what happens now under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llmtrap.audit import Event, Failed, Measured, Started
from llmtrap.cli.console import output
from llmtrap.cli.points import HEADS, MOST_NAMED, PointTable, new_trap_words
from llmtrap.printable import printable
from llmtrap.report.document import Report
from llmtrap.trajectory.document import Point
from llmtrap.trajectory.formatting import PointRow, point_row


class LiveTable(PointTable):
    """Keeps one table on the terminal; lines that are said stand above it, and the table stays when the block ends."""

    def __init__(self, workers: int, *, quiet: bool):
        super().__init__(workers, quiet=quiet)
        self._rows: list[PointRow] = []
        self._now = self._name = ""
        self._done = self._total = 0
        self._ended = False
        self._console = output()
        self._live = Live(get_renderable=self._drawn, console=self._console, auto_refresh=False)

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Draw while the block runs."""
        with self._live:
            try:
                yield self
            finally:
                self._now, self._ended = "", True

    @contextmanager
    def live(self, name: str) -> Iterator[LiveTable]:
        """Count the matrices of one checkpoint under the table while the block runs."""
        self._name, self._done, self._total = printable(name, 80), 0, 0
        self._status(f"{self._name} …")
        try:
            yield self
        finally:
            self._status("")

    def show(self, event: Event) -> None:
        """Take one event of the audit into account."""
        if isinstance(event, Started):
            self._total = event.todo
        elif isinstance(event, (Measured, Failed)):
            self._done += 1
            if isinstance(event, Failed):
                self._print(f"failed: {printable(event.task.matrix.id, 60)}: {printable(event.error)}")
        self._status(f"{self._name}: {self._done}/{self._total} matrices")

    def add(self, point: Point, report: Report) -> None:
        """A row for a checkpoint, and a line above the table for each matrix with a new trap."""
        self._rows.append(point_row(point, report))
        for name in (point.new_traps or ())[:MOST_NAMED]:
            self._print(f"{printable(point.label, 40)}: {new_trap_words(name, report)}")
        self._live.refresh()

    def say(self, words: str) -> None:
        """A line above the table."""
        self._print(words)

    def wait(self, words: str) -> None:
        """Under the table: what is waited for."""
        self._status(words)

    def _print(self, words: str) -> None:
        self._console.print(printable(words), soft_wrap=True)

    def _status(self, words: str) -> None:
        self._now = printable(words)
        self._live.refresh()

    def _drawn(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for head in HEADS[:-1]:
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column(HEADS[-1])
        # What does not fit on the screen cannot be drawn over: of a long run the last checkpoints are shown while it
        # goes on, and all of them at its end.
        room = len(self._rows) if self._ended else max(3, self._console.height - 4)
        for row in self._rows[-room:]:
            cells = (printable(row.label, 40), row.measured, row.unchanged, row.traps, row.new, row.alpha, row.verdict)
            table.add_row(*(Text(cell) for cell in cells))
        return Group(*([table] if self._rows else []), *([Text(self._now, style="dim")] if self._now else []))
