"""How far `llmtrap gate` has come: a bar a stage on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llmtrap.cli.console import messages


class Watcher:
    """Progress on standard error: a bar on a terminal, a line a stage elsewhere."""

    def __init__(self, *, quiet: bool):
        self._console = messages()
        self._quiet = quiet
        self._spoken: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self._console, transient=True, disable=quiet or not self._console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Watcher:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def observe(self, what: str, done: int, of: int) -> None:
        """Take one step into account."""
        if not self._bar.disable:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=of)
            self._bar.update(self._tasks[what], completed=done)
            return
        now = time.monotonic()
        if not self._quiet and (done == of or now - self._spoken.setdefault(what, now) > 10):
            self._spoken[what] = now
            self._console.print(f"{what}: {done} of {of}", soft_wrap=True)
