"""What runs the tasks of a plan, and what comes back for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmtrap.audit.plan import Task
from llmtrap.report import document


@dataclass(frozen=True)
class Outcome:
    """One task done or failed: exactly one of `matrix` and `error` is set.

    `worker` names the process, `peak_rss_bytes` is the most memory it has held so far, `stages` says where the seconds
    went, `more` is what the measurement gave beside the matrix.
    """

    key: str
    matrix: document.Matrix | None
    error: str | None
    worker: str
    peak_rss_bytes: int
    stages: dict[str, float] = field(default_factory=dict)
    more: object = None


@dataclass(frozen=True)
class WorkerStalled:
    """A worker has come to a stand at this task: for so many seconds it has used no processor time."""

    key: str
    worker: str
    seconds: float
    reason: str


class Executor(Protocol):
    """Runs tasks in any order and yields each outcome once. Closing the iterator stops the work at once."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | WorkerStalled]:
        """Yield an outcome for every task, and what there is to say meanwhile.

        Raises:
            AccessError: the target cannot be reached any more; what was yielded so far stands.
        """
        ...
