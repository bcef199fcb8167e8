"""WeightWatcher itself, run in a process of its own: it prints, warns, plots and draws from global generators."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import LlmtrapError, MissingExtraError
from llmtrap.processes.worker import WorkerDiedError, WorkerProcess, need_workers, stop_all

Floats = NDArray[np.floating]

# Eigenvalues at or under it are no part of WeightWatcher's fit, whatever the matrix's scale.
ABSOLUTE_FLOOR = 1e-5


@dataclass(frozen=True)
class Reference:
    """What WeightWatcher says of one matrix; None where it says -1. Its norms are squared; these are not."""

    alpha: float | None
    tail: int
    spectral_norm: float
    frobenius_norm: float
    traps: int | None


def need_weightwatcher() -> None:
    """Make sure that it can be run, before anything is announced.

    Raises:
        UnsupportedError: this system has no worker processes.
        MissingExtraError: it is not installed.
    """
    need_workers()
    if find_spec("weightwatcher") is None or find_spec("torch") is None:
        raise MissingExtraError.of("llmtrap verify", "weightwatcher")


def run_weightwatcher(matrices: Iterable[tuple[str, Floats]]) -> Iterator[tuple[str, Floats, Reference | str]]:
    """Analyse named matrices one after the other, with its randomised spectrum; or why there is no result.

    It draws from a global generator, which is set anew for each matrix, so that it says the same in every run.

    Raises:
        MissingExtraError: it is not installed.
        LlmtrapError: its process was killed.
    """
    need_weightwatcher()
    worker = WorkerProcess()
    try:
        for name, matrix in matrices:
            yield name, matrix, _ask(worker, name, matrix)
    finally:
        stop_all([worker])


def _ask(worker: WorkerProcess, name: str, matrix: Floats) -> Reference | str:
    worker.call(_try_to_analyse, matrix)
    try:
        answer: Reference | str = worker.result()
    except WorkerDiedError as death:
        problem = f"WeightWatcher's process ended with exit code {death.exit_code}"
        remedy = "The system may be out of memory: compare fewer or smaller matrices"
        raise LlmtrapError(problem, tensor=name, remedy=remedy) from death
    return answer


def _try_to_analyse(matrix: Floats) -> Reference | str:
    """In the process of its own: what it says of a matrix, or why it says nothing."""
    try:
        return _analyse(matrix)
    except Exception as error:
        return f"WeightWatcher failed ({type(error).__name__}: {error})"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _analyse(matrix: Floats) -> Reference | str:
    # Imported in the child alone: heavy, optional, and setting global state as they load.
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        import matplotlib  # noqa: PLC0415

        matplotlib.use("Agg")
        import torch  # noqa: PLC0415
        import weightwatcher  # noqa: PLC0415

        torch.set_num_threads(1)
        np.random.seed(0)
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
        watcher = weightwatcher.WeightWatcher(model=torch.nn.Sequential(layer))
        rows = list(watcher.analyze(randomize=True, mp_fit=True, plot=False).itertuples())
    if not rows:
        return "WeightWatcher leaves it out"
    (row,) = rows
    return Reference(
        alpha=float(row.alpha) if row.alpha > 0 else None,
        tail=max(0, int(row.num_pl_spikes)),
        spectral_norm=math.sqrt(row.spectral_norm),
        frobenius_norm=math.sqrt(row.norm),
        traps=int(row.rand_num_spikes) if row.rand_num_spikes >= 0 else None,
    )
