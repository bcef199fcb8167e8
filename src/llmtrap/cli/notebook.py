"""The progress of an audit that was called from Python: a bar where a person looks on, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from llmtrap.audit.run import AuditRun, Event
from llmtrap.cli.progress import AuditProgress


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
