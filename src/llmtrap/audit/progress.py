"""The live progress of an audit: a bar on a terminal, a line now and then in a pipe or log.

The command line and a call from Python show the same. Loaded where something is shown alone, since it needs Rich.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from llmtrap.audit.estimate import expected_seconds
from llmtrap.audit.run import AuditRun, Event, Failed, Measured, Stalled, Started
from llmtrap.report.formatting import duration, plural, printable, size

# Seconds between lines where there is no terminal.
_LINE_EVERY = 10.0


class AuditProgress:
    """Shows the events of a run; `failed` and `done` count them."""

    def __init__(self, console: Console, workers: int, *, quiet: bool):
        self._console = console
        self._workers = workers
        self._quiet = quiet
        self._bar: Progress | None = None
        self._started = 0.0
        self._spoken = 0.0
        self._bytes = 0
        self._cost = self._all_cost = 0.0
        self.total = self.done = self.failed = 0
        self.stages: Counter[str] = Counter()

    @contextmanager
    def live(self) -> Iterator[AuditProgress]:
        """Draw the bar while the block runs."""
        if self._quiet or not self._console.is_terminal:
            yield self
            return
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        ) as self._bar:
            yield self

    def show(self, event: Event) -> None:
        """Take one event into account."""
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Stalled):
            self._stalled(event)
        elif isinstance(event, (Measured, Failed)):
            self.done += 1
            self._bytes += event.task.bytes
            self._cost += event.task.cost
            if isinstance(event, Measured):
                self.stages.update(event.stages)
            else:
                self.failed += 1
                self._line(f"failed: {printable(event.task.matrix.id, 60)}: {printable(event.error)}")
            self._advance(event.task.matrix.id)

    def _stalled(self, event: Stalled) -> None:
        self._line(
            f"worker {event.worker} has come to a stand at {printable(event.task.matrix.id, 60)}: no processor time "
            f"for {duration(event.seconds)}; {event.reason}. With --stall-timeout SECONDS it is given up"
        )

    def _start(self, event: Started) -> None:
        self._started = self._spoken = time.monotonic()
        self.total = event.todo
        self._all_cost = event.remaining_core_seconds
        words = f"{plural(event.todo, 'matrix')} to measure, {size(event.remaining_bytes)}"
        if event.remembered:
            words += f"; {event.remembered} already in the journal"
        if event.todo:
            words += f"; about {duration(expected_seconds(event.remaining_core_seconds, self._workers))}"
        self._line(words)
        if self._bar is not None:
            self._bar.add_task("audit", total=event.todo, rate="", left="")

    def _advance(self, name: str) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = f"{size(int(self._bytes / elapsed))}/s"
        left = self._time_left(elapsed)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=self.done, description=printable(name, 28), rate=rate, left=left
            )
        elif not self._quiet and (time.monotonic() - self._spoken > _LINE_EVERY or self.done == self.total):
            self._spoken = time.monotonic()
            self._line(f"{self.done}/{self.total} matrices, {rate}{', ' + left if left else ''}")

    def _time_left(self, elapsed: float) -> str:
        """By the estimated work rather than by the count: an embedding is worth many small matrices."""
        if self.done == self.total or self._cost <= 0:
            return ""
        return f"{duration(elapsed * (self._all_cost - self._cost) / self._cost)} left"

    def where_the_time_went(self) -> None:
        """Say how the workers' seconds divide into stages, and how fast they went."""
        spent = sum(self.stages.values())
        if not spent:
            return
        elapsed = max(time.monotonic() - self._started, 1e-9)
        shares = ", ".join(f"{name} {seconds / spent:.0%}" for name, seconds in self.stages.most_common())
        self._console.print(
            f"{self.done / elapsed:.2f} matrices/s, {size(int(self._bytes / elapsed))}/s, "
            f"{duration(spent)} of work: {shares}",
            soft_wrap=True,
        )

    def _line(self, words: str) -> None:
        if not self._quiet:
            (self._bar.console if self._bar is not None else self._console).print(words, soft_wrap=True)


@contextmanager
def shown(run: AuditRun, progress: bool | Callable[[Event], object]) -> Iterator[Callable[[Event], object]]:
    """What each event is given to.

    Args:
        run: what is followed.
        progress: a function of one's own; True for a bar on a terminal or in a notebook; False for none.
    """
    if callable(progress):
        yield progress
        return
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    quiet = not progress or not (console.is_terminal or console.is_jupyter)
    with AuditProgress(console, run.options.workers, quiet=quiet).live() as bar:
        yield bar.show
