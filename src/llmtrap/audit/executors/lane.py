"""One worker process and the tasks that wait for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.worker import WorkerSpec, measure_in_worker, start_worker
from llmtrap.audit.plan import Task
from llmtrap.checkpoint.sources.memory import bytes_for_worker
from llmtrap.processes.serving import ParentRequest
from llmtrap.processes.stalls import StallMonitor
from llmtrap.processes.worker import WorkerDiedError, WorkerProcess, result_of, stop_all


@dataclass(frozen=True)
class WorkerDeath:
    """Why a task has no outcome."""

    reason: str


@dataclass
class Lane:
    """A worker, started with the first task that it is given, and started again after a death."""

    spec: WorkerSpec
    queue: deque[Task] = field(default_factory=deque)
    running: Task | None = None
    since: float = 0.0
    told: bool = False
    """Whether it was said already that the worker has come to a stand."""
    _worker: WorkerProcess | None = None
    _standstill: StallMonitor | None = None
    _ready: bool = False

    def start(self, task: Task, upcoming: Iterable[Task] = ()) -> None:
        """Give the worker a task; where it died while idle, a new one."""
        if self._worker is not None and not self._worker.alive:
            self.discard()
        if self._worker is None:
            self._worker, self._ready = WorkerProcess(), False
            self._standstill = StallMonitor(self._worker.pid)
            self._worker.call(start_worker, self.spec)
        if self._standstill is not None:
            self._standstill.begin()
        self._worker.call(measure_in_worker, task, tuple(upcoming))
        self.running, self.since, self.told = task, time.monotonic(), False

    @property
    def worker(self) -> WorkerProcess:
        """The process at work on what is running."""
        assert self._worker is not None  # noqa: S101 - there is one where a task is running
        return self._worker

    def take(self) -> Outcome | WorkerDeath | None:
        """What became of the task that is running; None where the worker has only begun to.

        Raises:
            AccessError: the source cannot be reached.
            DeviceError: the device is not there.
        """
        try:
            answer = self.worker.answer()
            if isinstance(answer, ParentRequest):
                self.worker.reply(partial(bytes_for_worker, answer.request))
                if self._standstill is not None:
                    self._standstill.begin()  # it waited for us
                return None
            found = result_of(answer)
        except WorkerDiedError as death:
            ready = self._ready
            self.discard()
            return WorkerDeath(_death_reason(death.exit_code, begun=ready))
        if not self._ready:
            self._ready = True
            return None
        outcome: Outcome = found
        return outcome

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


def stop_lanes(lanes: list[Lane]) -> None:
    """End all workers at once."""
    stop_all([lane._worker for lane in lanes if lane._worker is not None])


def _death_reason(code: int | None, *, begun: bool) -> str:
    memory = "(the system may be out of memory: use fewer --workers)"
    if not begun:
        return f"the worker died twice before it could begin {memory}"
    if code is not None and code < 0:
        return f"the worker was killed by signal {-code} twice{f' {memory}' if code == -9 else ''}"
    return f"the worker died twice with exit code {code}"
