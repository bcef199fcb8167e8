"""Several processes on this machine, each with one BLAS thread; of a process that dies one matrix fails.

Every worker is a lane of its own with a short queue, so that it is known what each will read next: a remote source
fetches that meanwhile, and no byte is fetched by two workers.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pebble import ProcessExpired, ProcessPool

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.batches import Batch, batches, fair_share, spans_of
from llmtrap.audit.executors.worker import WorkerSpec, measure_in_worker, start_worker
from llmtrap.audit.plan import Task
from llmtrap.checkpoint.sources.base import ByteRange

READ_AHEAD = 2
ATTEMPTS = 2
# A worker that has nothing left takes over what waits behind a batch of at least so many seconds: its bytes may have
# been fetched for the other worker already, so not for less.
LONG_SECONDS = 5.0


@dataclass
class _Lane:
    """One worker process and the batches that wait for it."""

    spec: WorkerSpec
    pool: ProcessPool = field(init=False)
    queue: deque[Batch] = field(default_factory=deque)
    running: Batch | None = None
    since: float = 0.0

    def __post_init__(self) -> None:
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")
        return ProcessPool(max_workers=1, context=context, initializer=start_worker, initargs=(self.spec,))

    def start(self, batch: Batch, upcoming: tuple[ByteRange, ...]) -> Future[list[Outcome]]:
        """Give the worker a batch; where it died while idle, a new one."""
        self.running, self.since = batch, time.monotonic()
        with _interrupts_held():
            try:
                return self.pool.schedule(measure_in_worker, args=[batch, upcoming])
            except RuntimeError:
                self.replace_worker()
                return self.pool.schedule(measure_in_worker, args=[batch, upcoming])

    def replace_worker(self) -> None:
        """Start afresh after a death: a pool may be left with half a message, or unusable."""
        self.stop()
        self.pool.join()
        self.pool = self._new_pool()

    def stop(self) -> None:
        """Stop the worker whatever it is doing."""
        self.pool.stop()  # type: ignore[no-untyped-call]


class LocalExecutor:
    """Runs tasks in worker processes.

    Args:
        spec: what each worker starts with.
        devices: one device a worker; its length is the number of workers.
        most: matrices of a batch.
    """

    def __init__(self, spec: WorkerSpec, devices: Sequence[str], most: int = 1):
        self._spec = spec
        self._devices = devices
        self.most = most

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come. A task whose worker dies is tried again, alone, then fails with the reason."""
        lanes = [_Lane(replace(self._spec, device=device)) for device in self._devices[: max(1, len(tasks))]]
        most = fair_share(self.most, len(tasks), len(lanes))
        try:
            yield from self._drive(lanes, deque(batches(tasks, most)))
        finally:
            for lane in lanes:
                lane.stop()
            for lane in lanes:
                lane.pool.join()

    def _drive(self, lanes: list[_Lane], waiting: deque[Batch]) -> Iterator[Outcome]:
        attempts: dict[str, int] = {}
        running: dict[Future[list[Outcome]], _Lane] = {}
        while True:
            for lane in lanes:
                _feed(lane, waiting, running)
            if not running:
                return
            for lane in lanes:
                _take_over(lane, lanes, running)
            someone_waits = any(lane.running is None for lane in lanes) and any(lane.queue for lane in lanes)
            done, _ = wait(running, LONG_SECONDS / 5 if someone_waits else None, FIRST_COMPLETED)
            ended = [_Ended(future, running.pop(future)) for future in done]
            for end in ended:
                if end.death is not None:
                    end.lane.replace_worker()
                # Before its outcomes are written down, which takes the disk as long as a small matrix takes.
                _feed(end.lane, waiting, running)
            for end in ended:
                if end.death is None:
                    yield from end.future.result()
                    continue
                # One by one, so that only what killed the worker can do so again.
                for task in end.batch:
                    attempts[task.key] = attempts.get(task.key, 0) + 1
                    if attempts[task.key] < ATTEMPTS:
                        waiting.append((task,))
                    else:
                        yield Outcome(task.key, None, _obituary(end.death), "", 0)


class _Ended:
    """A batch that a worker is done with, or died of; the worker is free for another."""

    def __init__(self, future: Future[list[Outcome]], lane: _Lane):
        assert lane.running is not None  # noqa: S101 - a running future has its batch
        self.future, self.lane, self.batch = future, lane, lane.running
        lane.running = None
        failure = future.exception()
        self.death = failure if isinstance(failure, (ProcessExpired, BrokenProcessPool)) else None


def _feed(lane: _Lane, waiting: deque[Batch], running: dict[Future[list[Outcome]], _Lane]) -> None:
    """Start the lane's next batch if it is idle, and reserve what it reads after that."""
    if lane.running is not None:
        return
    # Near the end nothing is reserved: a batch must not wait behind a long one while another worker is idle.
    ahead = READ_AHEAD if len(waiting) > 4 * READ_AHEAD else 0
    while waiting and len(lane.queue) < 1 + ahead:
        lane.queue.append(waiting.popleft())
    if not lane.queue:
        return
    batch = lane.queue.popleft()
    running[lane.start(batch, spans_of(lane.queue))] = lane


def _take_over(lane: _Lane, lanes: list[_Lane], running: dict[Future[list[Outcome]], _Lane]) -> None:
    """Give an idle lane the last batch of a queue that has long not moved."""
    if lane.running is not None or lane.queue:
        return
    behind = [other for other in lanes if other.queue and time.monotonic() - other.since >= LONG_SECONDS]
    if behind:
        batch = max(behind, key=lambda other: len(other.queue)).queue.pop()
        running[lane.start(batch, ())] = lane


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started meanwhile: they inherit the mask, and would die with a traceback."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _obituary(death: ProcessExpired | BrokenProcessPool) -> str:
    if isinstance(death, BrokenProcessPool):
        return "the worker died twice before it could begin (the system may be out of memory: use fewer --workers)"
    code = death.exitcode
    if code is not None and code < 0:
        how = f"was killed by signal {-code}"
        hint = " (the system may be out of memory: use fewer --workers)" if code == -9 else ""
        return f"the worker {how} twice{hint}"
    return f"the worker died twice with exit code {code}"
