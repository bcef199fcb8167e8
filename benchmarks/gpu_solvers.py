"""Eigenvalues of Gram matrices of GPT-OSS's side on a CUDA device and on the cores: `python -m benchmarks.gpu`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.gpu_steps import waiter
from llmtrap.spectra.backends import Array, select_backend
from llmtrap.spectra.traps import TOP_COUNT

SIDE, ROWS = 2880, 5760
SMALL = 512
STACK = 16


@dataclass(frozen=True)
class Solving:
    """Milliseconds a matrix, the median of the rounds, and matrices a second."""

    library: str
    way: str
    side: int
    precision: str
    milliseconds: float
    per_second: float


def measure_solvers(libraries: Sequence[str], rounds: int) -> Iterator[Solving]:
    """One by one and in stacks on the device; on one core and on all; singular values in PyTorch."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((ROWS, SIDE), dtype=np.float32)
    for side, precisions in ((SIDE, ("float32", "float64")), (SMALL, ("float64",))):
        part = weights[:, :side]
        gram = part.T @ part
        for library in libraries:
            for precision in precisions:
                yield from _on_device(library, gram.astype(precision), rounds)
    for count in (1, len(os.sched_getaffinity(0))):
        yield _on_cores(weights.T @ weights, count)
    if "torch" in libraries:
        yield _singular_values(weights, rounds)


def _on_device(library: str, gram: NDArray[np.floating], rounds: int) -> Iterator[Solving]:
    backend, wait = select_backend(library, "cuda:0"), waiter(library)
    module: Any = import_module(library)
    nothing = np.zeros(len(gram))

    def per_matrix(count: int, work: Callable[[list[Array]], object]) -> float:
        seconds = []
        for turn in range(rounds + 1):
            # Copies: the solver may destroy what it is given.
            grams = [backend.add_rank_two(backend.from_host(gram), nothing, nothing) for _ in range(count)]
            wait()
            began = time.perf_counter()
            work(grams)
            wait()
            if turn:
                seconds.append((time.perf_counter() - began) / count)
        return statistics.median(seconds)

    yield _row(library, "one by one", gram, per_matrix(2, lambda grams: list(map(module.linalg.eigvalsh, grams))))
    stacked = per_matrix(STACK, lambda grams: module.linalg.eigvalsh(module.stack(grams)))
    yield _row(library, f"stack of {STACK}", gram, stacked)
    start = np.ones(len(gram))
    top = partial(backend.top_eigenpairs, count=TOP_COUNT, start=start, vectors=False)
    yield _row(library, f"{TOP_COUNT} largest", gram, per_matrix(2, lambda grams: list(map(top, grams))))


def _singular_values(weights: NDArray[np.float32], rounds: int) -> Solving:
    torch = import_module("torch")
    matrix = torch.from_numpy(weights).cuda()
    seconds = []
    for turn in range(min(rounds, 2) + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.linalg.svdvals(matrix)
        torch.cuda.synchronize()
        if turn:
            seconds.append(time.perf_counter() - began)
    return _row("torch", f"svdvals of {ROWS} × {SIDE}", weights, statistics.median(seconds))


def _on_cores(gram: NDArray[np.floating], cores: int) -> Solving:
    # Each process solves one matrix that does not count, and then two.
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        seconds = list(pool.map(_solve_on_core, [gram] * cores))
    return _row("LAPACK", f"{cores} cores", gram, statistics.median(seconds) / cores)


def _solve_on_core(gram: NDArray[np.floating]) -> float:
    with threadpool_limits(1):
        scipy.linalg.eigvalsh(gram, driver="ev", check_finite=False)
        began = time.perf_counter()
        for _ in range(2):
            scipy.linalg.eigvalsh(gram, driver="ev", check_finite=False)
        return (time.perf_counter() - began) / 2


def _row(library: str, way: str, matrix: NDArray[np.floating], seconds: float) -> Solving:
    return Solving(library, way, matrix.shape[1], str(matrix.dtype), 1e3 * seconds, 1 / seconds)
