"""The tasks on a Ray cluster: an existing one (`RAY_ADDRESS`), else one that is started here for the time of the run.

Matrices travel in groups of one shard and come back one by one, so that the journal, which the driver writes, holds
each as soon as it is done. Ray's own retries are off: a lost worker's matrices are given out again from here.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from typing import Any

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.serial import READ_AHEAD
from llmtrap.audit.executors.worker import Worker, WorkerSpec
from llmtrap.audit.plan import Task
from llmtrap.errors import DeviceError, LlmtrapError, MissingExtraError

ATTEMPTS = 2
# Groups a worker slot gets in the course of a run: enough for slow and fast ones to end together.
GROUPS_A_SLOT = 4
LARGEST_GROUP = 32
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_PROMPT_ENABLED": "0"}


class RayExecutor:
    """Runs tasks on a Ray cluster. Every node needs llmtrap, in this version, and the target under the same name.

    Args:
        spec: what each worker starts with.
        workers: size of the cluster that is started here where none is named by `RAY_ADDRESS`.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, spec: WorkerSpec, workers: int):
        if find_spec("ray") is None:
            raise MissingExtraError.of("--engine ray", "ray")
        self._spec = spec
        self._workers = workers

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come. A task whose worker is lost twice fails with the reason.

        Raises:
            AccessError: a worker cannot reach the target.
            DeviceError: the cluster has no GPU and one was asked for.
            LlmtrapError: the cluster cannot be reached.
        """
        ray = import_module("ray")
        started = _connect(ray, self._workers)
        try:
            yield from _Drive(ray, self._spec).run(tasks)
        finally:
            if started:
                ray.shutdown()


class _Drive:
    """One run: the groups that are out, and what is left of each."""

    def __init__(self, ray: Any, spec: WorkerSpec):
        self._ray = ray
        gpus = 1 if spec.device.startswith("cuda") else 0
        resources = ray.cluster_resources()
        if gpus and not resources.get("GPU"):
            raise DeviceError("the Ray cluster has no GPU", remedy="Add a node with one, or use --device cpu")
        self._slots = max(1, int(resources.get("GPU" if gpus else "CPU", 1)))
        # Ray shows each task its own GPU, as the only one there is.
        self._spec = ray.put(replace(spec, device="cuda:0") if gpus else spec)
        self._measure = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, num_returns="streaming")(measure_group)
        self._out: dict[Any, deque[Task]] = {}
        self._attempts: dict[str, int] = {}

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        try:
            for group in groups(tasks, self._slots):
                self._submit(group)
            while self._out:
                ready, _ = self._ray.wait(list(self._out), num_returns=1)
                yield from self._take(ready[0])
        finally:
            for stream in self._out:
                self._ray.cancel(stream, force=True)

    def _submit(self, group: Sequence[Task]) -> None:
        if group:
            self._out[self._measure.remote(self._spec, tuple(group))] = deque(group)

    def _take(self, stream: Any) -> Iterator[Outcome]:
        """The outcome of a group's next task; its end; or the loss of its worker."""
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(next(stream))
        except StopIteration:
            self._submit(self._out.pop(stream))
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as loss:
            yield from self._lost(self._out.pop(stream), loss)
        else:
            self._out[stream].popleft()
            yield outcome

    def _lost(self, left: deque[Task], loss: Exception) -> Iterator[Outcome]:
        """Try the matrix in hand once more, alone, and give the rest to others."""
        suspect = left.popleft()
        self._submit(left)
        self._attempts[suspect.key] = self._attempts.get(suspect.key, 0) + 1
        if self._attempts[suspect.key] < ATTEMPTS:
            self._submit([suspect])
        else:
            reason = str(loss).split(". ")[0].splitlines()[0].rstrip(".")
            yield Outcome(suspect.key, None, f"the worker was lost twice ({type(loss).__name__}: {reason})", "", 0)


def groups(tasks: Sequence[Task], slots: int) -> Iterator[Sequence[Task]]:
    """Cut the work, which comes in shard order, into groups that each lie in one shard."""
    size = max(1, min(LARGEST_GROUP, math.ceil(len(tasks) / (slots * GROUPS_A_SLOT))))
    for _, of_shard in groupby(tasks, key=lambda task: task.matrix.stored.parts[0].span.file):
        shard = list(of_shard)
        yield from (shard[first : first + size] for first in range(0, len(shard), size))


def measure_group(spec: WorkerSpec, group: Sequence[Task]) -> Iterator[Outcome]:
    """Measure one task after another on a node of the cluster."""
    worker = Worker(spec)
    name = f"{platform.node()}:{os.getpid()}"
    try:
        for k, task in enumerate(group):
            yield replace(worker.measure(task, group[k + 1 : k + 1 + READ_AHEAD]), worker=name)
    finally:
        worker.close()
        spec.source.close()


def _connect(ray: Any, workers: int) -> bool:
    """Join the cluster of `RAY_ADDRESS`, or start one; False where this process is connected already."""
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    place = {"address": address} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
    try:
        if address:
            _check_reachable(address)
        with _quietly():
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # Ray raises whatever it likes, a bare Exception where its servers do not start
        raise LlmtrapError(
            f"the Ray cluster {address or 'on this machine'} cannot be reached ({error})",
            remedy="Check RAY_ADDRESS and 'ray status'; the cluster's Ray and Python must have the versions used here",
        ) from error
    return True


def _check_reachable(address: str) -> None:
    """Find out in seconds whether anybody is there: Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _quietly() -> Iterator[None]:
    """Start Ray without its statistics and greetings; the logger and the environment are as before afterwards."""
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    logger = logging.getLogger("ray")
    level = logger.level
    os.environ.update(added)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in added:
            del os.environ[name]
