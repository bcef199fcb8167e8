"""The inside of one worker: its own source and backend, one BLAS thread, one batch of matrices at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from threadpoolctl import threadpool_limits

from llmtrap.audit.executors.ahead import ReadAhead
from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.batches import Batch, spans_of
from llmtrap.audit.measure import in_stored_tensor, measure_in_steps
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import SharedSolver, Stages
from llmtrap.checkpoint import LocalSource, Source
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError
from llmtrap.report import document
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import Backend, select_backend
from llmtrap.spectra.together import Steps, together
from llmtrap.systems.process import peak_rss_bytes


class MeasureTask(Protocol):
    """Measures one task in steps: its matrix, and what else the caller wants to know of it."""

    def __call__(
        self,
        task: Task,
        source: Source,
        settings: AnalysisSettings,
        backend: Backend,
        stages: Stages,
        solver: SharedSolver,
    ) -> Steps[tuple[document.Matrix, object]]:
        """Read, decode and measure."""
        ...


def measure_task(
    task: Task, source: Source, settings: AnalysisSettings, backend: Backend, stages: Stages, solver: SharedSolver
) -> Steps[tuple[document.Matrix, object]]:
    """What an audit measures of a task: its matrix alone."""
    found = yield from measure_in_steps(task.matrix, source, settings, backend, stages, solver)
    return in_stored_tensor(found, task.matrix), None


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to start, on whatever machine it is. `measure` is a function of a module, to be pickled."""

    source: Source
    analysis: AnalysisSettings
    backend: str
    device: str
    measure: MeasureTask = measure_task


class Worker:
    """Measures one batch of tasks after another."""

    def __init__(self, spec: WorkerSpec):
        self._spec = spec
        self._backend = select_backend(spec.backend, spec.device)
        self._ahead: ReadAhead | None = None
        # The kernel reads ahead for the CPU, and a hub repository by itself.
        if self._backend.decoder is not None and isinstance(spec.source, LocalSource):
            self._ahead = ReadAhead(spec.source)
        self._source = self._ahead or spec.source

    def measure(self, tasks: Sequence[Task], upcoming: Sequence[ByteRange] = ()) -> list[Outcome]:
        """Measure some matrices together. A matrix that cannot be measured is an outcome, not an exception.

        Args:
            tasks: the matrices.
            upcoming: what this worker will read next, for the source to fetch meanwhile.

        Raises:
            AccessError: the source cannot be reached; no other matrix would fare better.
        """
        solver = SharedSolver(self._backend.eigenvalues_of)
        runs = [self._steps(tasks[k:], upcoming, solver) for k in range(len(tasks))]
        # Two-threaded BLAS on busy cores is ten times slower than one thread a worker.
        with threadpool_limits(1):
            outcomes = together(runs, solver)
        if len(tasks) == 1:
            return outcomes
        # Memory too short for all together may do for one, and a solver that fails at one fails all of its call: what
        # fails is what fails alone.
        return [
            outcome if outcome.error is None else self.measure([task], upcoming)[0]
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

    def _steps(self, tasks: Sequence[Task], upcoming: Sequence[ByteRange], solver: SharedSolver) -> Steps[Outcome]:
        """Measure the first of these tasks in steps; the others come after it."""
        # A file that changed or vanished fails the matrices that lie in it, when they are read.
        with suppress(CheckpointError):
            self._source.prefetch(chain(spans_of([tasks]), upcoming))
        task, stages = tasks[0], Stages()
        matrix, more, error = None, None, None
        try:
            matrix, more = yield from self._spec.measure(
                task, self._source, self._spec.analysis, self._backend, stages, solver
            )
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


def measure_in_worker(tasks: Batch, upcoming: tuple[ByteRange, ...]) -> list[Outcome]:
    """Measure some tasks together in this process's worker.

    Raises:
        AccessError: the source cannot be reached.
        DeviceError: the device is not there. It is raised here, not at the start, so that it reaches the driver.
    """
    if _process.worker is None:
        if _process.spec is None:
            raise RuntimeError("start_worker was not called in this process")
        _process.worker = Worker(_process.spec)
    return _process.worker.measure(tasks, upcoming)
