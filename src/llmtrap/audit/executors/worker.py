"""The inside of one worker: its own source and backend, one BLAS thread, one matrix at a time."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from threadpoolctl import threadpool_limits

from llmtrap.audit.executors.ahead import ReadAhead
from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.measure import measure_matrix
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import Stages, TimedBackend
from llmtrap.checkpoint import LocalSource, Source
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError
from llmtrap.orphans import end_with_parent
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import select_backend


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to start, on whatever machine it is."""

    source: Source
    analysis: AnalysisSettings
    backend: str
    device: str


class Worker:
    """Measures one task after another."""

    def __init__(self, spec: WorkerSpec):
        self._spec = spec
        self._backend = select_backend(spec.backend, spec.device)
        self._ahead: ReadAhead | None = None
        # The kernel reads ahead for the CPU, and a hub repository by itself.
        if self._backend.decoder is not None and isinstance(spec.source, LocalSource):
            self._ahead = ReadAhead(spec.source)
        self._source = self._ahead or spec.source

    def measure(self, task: Task, upcoming: Iterable[ByteRange] = ()) -> Outcome:
        """Measure one matrix. A matrix that cannot be measured is an outcome, not an exception.

        Args:
            task: the matrix.
            upcoming: what this worker will read next, for the source to fetch meanwhile.

        Raises:
            AccessError: the source cannot be reached; no other matrix would fare better.
        """
        # A file that changed or vanished fails the matrices that lie in it, when they are read.
        with suppress(CheckpointError):
            self._source.prefetch(chain(task.matrix.spans(), upcoming))
        matrix, error = None, None
        stages, start = Stages(), time.perf_counter()
        # Two-threaded BLAS on busy cores is ten times slower than one thread a worker.
        with threadpool_limits(1):
            try:
                matrix = measure_matrix(
                    task.matrix, self._source, self._spec.analysis, TimedBackend(self._backend, stages), stages
                )
            except AccessError:
                raise
            except LlmtrapError as failure:
                error = failure.message
            except MemoryError:
                error = "out of memory"
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
        spent = stages.finish(time.perf_counter() - start)
        return Outcome(task.key, matrix, error, f"{os.getpid()}", peak_rss_bytes(), spent)

    def close(self) -> None:
        """End what reads ahead; the source stays open."""
        if self._ahead is not None:
            self._ahead.close()


def peak_rss_bytes() -> int:
    """The most resident memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


@dataclass
class _Process:
    """What this process holds between calls."""

    spec: WorkerSpec | None = None
    worker: Worker | None = None


_process = _Process()


def start_worker(spec: WorkerSpec) -> None:
    """Set up this process as a worker. Interrupts are the driver's business: it stops its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A Python handler would wait for the eigensolver, which may take minutes: end at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    _process.spec = spec


def measure_in_worker(task: Task, upcoming: tuple[ByteRange, ...]) -> Outcome:
    """Measure one task in this process's worker.

    Raises:
        AccessError: the source cannot be reached.
        DeviceError: the device is not there. It is raised here, not at the start, so that it reaches the driver.
    """
    if _process.worker is None:
        if _process.spec is None:
            raise RuntimeError("start_worker was not called in this process")
        _process.worker = Worker(_process.spec)
    return _process.worker.measure(task, upcoming)
