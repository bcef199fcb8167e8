"""WeightWatcher itself, run in a process of its own: it prints, warns, plots and draws from global generators."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import signal
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import LlmtrapError, MissingExtraError
from llmtrap.orphans import end_with_parent

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


def run_weightwatcher(matrices: Iterable[tuple[str, Floats]]) -> Iterator[tuple[str, Floats, Reference | str]]:
    """Analyse named matrices one after the other, with its randomised spectrum; or why there is no result.

    It draws from a global generator, which is set anew for each matrix, so that it says the same in every run.

    Raises:
        MissingExtraError: it is not installed.
        LlmtrapError: its process was killed.
    """
    if find_spec("weightwatcher") is None or find_spec("torch") is None:
        raise MissingExtraError.of("llmtrap verify", "weightwatcher")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="weightwatcher", daemon=True)
    process.start()
    theirs.close()
    try:
        for name, matrix in matrices:
            yield name, matrix, _ask(ours, process, name, matrix)
    finally:
        ours.close()
        process.kill()
        process.join()


def _ask(pipe: Connection, process: SpawnProcess, name: str, matrix: Floats) -> Reference | str:
    try:
        pipe.send(matrix)
        answer: Reference | str = pipe.recv()
    except (EOFError, OSError) as error:
        process.join()
        problem = f"WeightWatcher's process ended with exit code {process.exitcode}"
        remedy = "The system may be out of memory: compare fewer or smaller matrices"
        raise LlmtrapError(problem, tensor=name, remedy=remedy) from error
    return answer


def _serve(pipe: Connection) -> None:
    """In a process of its own: one answer for each matrix, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    with contextlib.suppress(EOFError):
        while True:
            matrix = pipe.recv()
            try:
                pipe.send(_analyse(matrix))
            except Exception as error:
                pipe.send(f"WeightWatcher failed ({type(error).__name__}: {error})")


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
