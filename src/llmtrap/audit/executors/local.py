"""Several processes on this machine, each with one BLAS thread; of a process that dies one matrix fails.

Every worker is a lane of its own with a short queue, so that it is known what each will read next: a remote source
fetches that meanwhile, and no byte is fetched by two workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from llmtrap.audit.executors.base import Outcome, WorkerStalled
from llmtrap.audit.executors.worker import WorkerSpec, measure_in_worker, start_worker
from llmtrap.audit.plan import Task
from llmtrap.checkpoint.sources.memory import bytes_for_worker
from llmtrap.processes.lane import Done, Lane, WorkerDeath, stop_lanes
from llmtrap.processes.stalls import NOTICED_SECONDS
from llmtrap.processes.worker import wait_for_answers

READ_AHEAD = 2
ATTEMPTS = 2
# A worker that has nothing left takes over what waits behind a task of at least so many seconds: its bytes may have
# been fetched for the other worker already, so not for less.
LONG_SECONDS = 5.0


class LocalExecutor:
    """Runs tasks in worker processes.

    Args:
        spec: what each worker starts with.
        devices: one device a worker; its length is the number of workers.
        stall_timeout: seconds without any use of the processor after which a worker is given up, as if it had died;
            None waits for ever.
    """

    def __init__(self, spec: WorkerSpec, devices: Sequence[str], stall_timeout: float | None = None):
        self._spec = spec
        self._devices = devices
        self._stall_timeout = stall_timeout

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | WorkerStalled]:
        """Yield outcomes as they come. A task whose worker dies is tried again, then fails with the reason."""
        specs = [replace(self._spec, device=device) for device in self._devices[: max(1, len(tasks))]]
        lanes: list[Lane[Task]] = [Lane(partial(start_worker, spec), give=bytes_for_worker) for spec in specs]
        try:
            yield from self._drive(lanes, deque(tasks))
        finally:
            stop_lanes(lanes)

    def _drive(self, lanes: list[Lane[Task]], waiting: deque[Task]) -> Iterator[Outcome | WorkerStalled]:
        attempts: dict[str, int] = {}
        while True:
            for lane in lanes:
                _feed(lane, waiting)
            busy = [lane for lane in lanes if lane.running is not None]
            if not busy:
                return
            for lane in lanes:
                _take_over(lane, lanes)
            ready = wait_for_answers([lane.worker for lane in busy], LONG_SECONDS / 5)
            ended: list[tuple[Task, Done | WorkerDeath]] = []
            for lane in busy:
                task = lane.running
                found = lane.take() if lane.worker in ready else self._given_up(lane)
                if found is None or task is None:
                    continue
                lane.running = None
                ended.append((task, found))
                # Before its outcomes are written down, which takes the disk as long as a small matrix takes.
                _feed(lane, waiting)
            yield from self._notices(busy)
            for task, found in ended:
                if isinstance(found, Done):
                    yield found.value
                    continue
                attempts[task.key] = attempts.get(task.key, 0) + 1
                if attempts[task.key] < ATTEMPTS:
                    waiting.append(task)
                else:
                    yield Outcome(task.key, None, found.reason or _death_reason(found), "", 0)

    def _given_up(self, lane: Lane[Task]) -> WorkerDeath | None:
        """The end of a worker that has been at a stand for as long as the user allows."""
        seconds = lane.standstill()
        if self._stall_timeout is None or seconds < self._stall_timeout:
            return None
        reason = f"the worker came to a stand for {seconds:.0f} s twice ({lane.stands_because()})"
        lane.discard()
        return WorkerDeath(reason=reason)

    def _notices(self, busy: Sequence[Lane[Task]]) -> Iterator[WorkerStalled]:
        """Say once of each task that its worker has come to a stand."""
        for lane in busy:
            if lane.running is None or lane.told or lane.standstill() < NOTICED_SECONDS:
                continue
            lane.told = True
            yield WorkerStalled(lane.running.key, f"{lane.worker.pid}", lane.standstill(), lane.stands_because())


def _feed(lane: Lane[Task], waiting: deque[Task]) -> None:
    """Start the lane's next task if it is idle, and reserve what it reads after that."""
    if lane.running is not None:
        return
    # Near the end nothing is reserved: a task must not wait behind a long one while another worker is idle.
    ahead = READ_AHEAD if len(waiting) > 4 * READ_AHEAD else 0
    while waiting and len(lane.queue) < 1 + ahead:
        lane.queue.append(waiting.popleft())
    if not lane.queue:
        return
    _start(lane, lane.queue.popleft())


def _take_over(lane: Lane[Task], lanes: list[Lane[Task]]) -> None:
    """Give an idle lane the last task of a queue that has long not moved."""
    if lane.running is not None or lane.queue:
        return
    behind = [other for other in lanes if other.queue and time.monotonic() - other.since >= LONG_SECONDS]
    if behind:
        _start(lane, max(behind, key=lambda other: len(other.queue)).queue.pop())


def _start(lane: Lane[Task], task: Task) -> None:
    lane.start(task, measure_in_worker, task, tuple(lane.queue))


def _death_reason(death: WorkerDeath) -> str:
    memory = "(the system may be out of memory: use fewer --workers)"
    code = death.exit_code
    if not death.begun:
        return f"the worker died twice before it could begin {memory}"
    if code is not None and code < 0:
        return f"the worker was killed by signal {-code} twice{f' {memory}' if code == -9 else ''}"
    return f"the worker died twice with exit code {code}"
