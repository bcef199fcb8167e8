"""One task after another, in this process: what library users get unless they ask for workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.worker import Worker, WorkerSpec
from llmtrap.audit.plan import Task

# Tasks whose bytes a remote source may fetch while one is measured.
READ_AHEAD = 3


class SerialExecutor:
    """Runs tasks here. A matrix that exhausts the memory takes the process with it: use workers against that.

    Args:
        spec: what the worker starts with.
    """

    def __init__(self, spec: WorkerSpec):
        self._spec = spec

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield an outcome for every task, in order."""
        worker = Worker(self._spec)
        try:
            for k, task in enumerate(tasks):
                yield worker.measure(task, tasks[k + 1 : k + 1 + READ_AHEAD])
        finally:
            worker.close()
