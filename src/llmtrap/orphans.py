"""End a worker process when the process that started it is gone: nobody would take its results."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Watch the parent from a thread of its own; once it has ended, by whatever means, this process ends at once.

    A parent that is killed cannot stop its workers itself. A training would go on for hours, into a folder that the
    same command, started again, writes too.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
