"""One worker process and the tasks that wait for it: what every pool of workers here is made of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from llmtrap.processes.serving import ParentRequest, Told
from llmtrap.processes.stalls import StallMonitor
from llmtrap.processes.worker import WorkerDiedError, WorkerProcess, result_of, stop_all

Task = TypeVar("Task")


@dataclass(frozen=True)
class WorkerDeath:
    """Why a task has no result: the code with which the worker ended, and whether it had begun to work at all.

    `reason` says why it was given up, where it did not end by itself.
    """

    exit_code: int | None = None
    begun: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Done:
    """What the work on a task gave."""

    value: Any


@dataclass
class Lane(Generic[Task]):
    """A worker, started with the first task that it is given, and started again after a death.

    Attributes:
        begin: what a new worker calls first; functions and arguments are pickled.
        give: the bytes that a worker asked for, where it may ask.
        hear: called with what a worker tells while it is at work.
        queue: tasks that wait for it.
        running: what it is at work on.
        since: when it began to be.
        told: whether it was said already that the worker has come to a stand.
    """

    begin: Callable[[], object]
    give: Callable[[Any], Any] | None = None
    hear: Callable[[Any], None] = lambda _: None
    queue: deque[Task] = field(default_factory=deque)
    running: Task | None = None
    since: float = 0.0
    told: bool = False
    _worker: WorkerProcess | None = None
    _standstill: StallMonitor | None = None
    _ready: bool = False

    def start(self, task: Task, work: Callable[..., object], *arguments: object) -> None:
        """Let the worker call this for a task; where it died while idle, a new one."""
        if self._worker is not None and not self._worker.alive:
            self.discard()
        if self._worker is None:
            self._worker, self._ready = WorkerProcess(), False
            self._standstill = StallMonitor(self._worker.pid)
            self._worker.call(self.begin)
        if self._standstill is not None:
            self._standstill.begin()
        self._worker.call(work, *arguments)
        self.running, self.since, self.told = task, time.monotonic(), False

    @property
    def worker(self) -> WorkerProcess:
        """The process at work on what is running."""
        assert self._worker is not None  # noqa: S101 - there is one where a task is running
        return self._worker

    def take(self) -> Done | WorkerDeath | None:
        """What became of the task that is running; None where the worker has only begun to, or told something.

        Raises:
            Exception: what the work raised.
        """
        try:
            answer = self.worker.answer()
            if isinstance(answer, Told):
                self.hear(answer.value)
                return None
            if isinstance(answer, ParentRequest) and self.give is not None:
                self.worker.reply(partial(self.give, answer.request))
                if self._standstill is not None:
                    self._standstill.begin()  # it waited for us
                return None
            found = result_of(answer)
        except WorkerDiedError as death:
            ready = self._ready
            self.discard()
            return WorkerDeath(death.exit_code, begun=ready)
        if not self._ready:
            self._ready = True
            return None
        return Done(found)

    def standstill(self) -> float:
        """For how many seconds the worker has used no processor time."""
        return self._standstill.seconds() if self._standstill is not None else 0.0

    def stands_because(self) -> str:
        """What it waits for, in words."""
        return self._standstill.reason() if self._standstill is not None else ""

    def discard(self) -> None:
        """End the worker, whatever it is doing; the next task gets a new one."""
        if self._worker is not None:
            stop_all([self._worker])
        self._worker = self._standstill = None


def stop_lanes(lanes: Sequence[Lane[Any]]) -> None:
    """End all workers at once."""
    stop_all([lane._worker for lane in lanes if lane._worker is not None])
