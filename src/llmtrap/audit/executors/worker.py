"""The inside of one worker: its own source and backend, one BLAS thread, one matrix at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from threadpoolctl import threadpool_limits

from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.read_ahead import ReadAhead
from llmtrap.audit.measure import in_stored_tensor, measure_matrix
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import Stages
from llmtrap.checkpoint import LocalSource, Source
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError
from llmtrap.report import document
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import Backend, select_backend
from llmtrap.systems.process import peak_rss_bytes


class MeasureTask(Protocol):
    """Measures one task: its matrix, and what else the caller wants to know of it."""

    def __call__(
        self, task: Task, source: Source, settings: AnalysisSettings, backend: Backend, stages: Stages
    ) -> tuple[document.Matrix, object]:
        """Read, decode and measure."""
        ...


def measure_task(
    task: Task, source: Source, settings: AnalysisSettings, backend: Backend, stages: Stages
) -> tuple[document.Matrix, object]:
    """What an audit measures of a task: its matrix alone."""
    return in_stored_tensor(measure_matrix(task.matrix, source, settings, backend, stages), task.matrix), None


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to start, on whatever machine it is. `measure` is a function of a module, to be pickled."""

    source: Source
    analysis: AnalysisSettings
    backend: str
    device: str
    measure: MeasureTask = measure_task


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

    def measure(self, task: Task, upcoming: Iterable[Task] = ()) -> Outcome:
        """Measure one matrix. One that cannot be measured is an outcome, not an exception.

        Args:
            task: the matrix.
            upcoming: what this worker will read next, for the source to fetch meanwhile.

        Raises:
            AccessError: the source cannot be reached; no other matrix would fare better.
        """
        # A file that changed or vanished fails the matrices that lie in it, when they are read.
        with suppress(CheckpointError):
            self._source.prefetch(chain.from_iterable(one.matrix.spans() for one in (task, *upcoming)))
        stages = Stages()
        matrix, more, error = None, None, None
        try:
            # Two-threaded BLAS on busy cores is ten times slower than one thread a worker.
            with threadpool_limits(1):
                matrix, more = self._spec.measure(task, self._source, self._spec.analysis, self._backend, stages)
        except AccessError:
            raise
        except LlmtrapError as failure:
            error = failure.message
        except MemoryError:
            error = "out of memory"
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Outcome(task.key, matrix, error, f"{os.getpid()}", peak_rss_bytes(), stages.finish(), more)

    def close(self) -> None:
        """End what reads ahead; the source stays open."""
        if self._ahead is not None:
            self._ahead.close()


@dataclass
class _Process:
    """What this process holds between calls."""

    spec: WorkerSpec | None = None
    worker: Worker | None = None


_process = _Process()


def start_worker(spec: WorkerSpec) -> None:
    """Set up this process as a worker."""
    _process.spec = spec


def measure_in_worker(task: Task, upcoming: tuple[Task, ...]) -> Outcome:
    """Measure a task in this process's worker.

    Raises:
        AccessError: the source cannot be reached.
        DeviceError: the device is not there. It is raised here, not at the start, so that it reaches the driver.
    """
    if _process.worker is None:
        if _process.spec is None:
            raise RuntimeError("start_worker was not called in this process")
        _process.worker = Worker(_process.spec)
    return _process.worker.measure(task, upcoming)
