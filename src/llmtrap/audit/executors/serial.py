"""One batch after another, in this process: what library users get unless they ask for workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.batches import batches, spans_of
from llmtrap.audit.executors.worker import Worker, WorkerSpec
from llmtrap.audit.plan import Task

# Batches whose bytes a remote source may fetch while one is measured.
READ_AHEAD = 3


class SerialExecutor:
    """Runs tasks here. A matrix that exhausts the memory takes the process with it: use workers against that.

    Args:
        spec: what the worker starts with.
        most: matrices of a batch.
    """

    def __init__(self, spec: WorkerSpec, most: int = 1):
        self._spec = spec
        self.most = most

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield an outcome for every task, in order."""
        worker = Worker(self._spec)
        cut = list(batches(tasks, self.most))
        try:
            for k, batch in enumerate(cut):
                yield from worker.measure(batch, spans_of(cut[k + 1 : k + 1 + READ_AHEAD]))
        finally:
            worker.close()
