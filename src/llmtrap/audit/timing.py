"""Where the time of a matrix went, for `--verbose`: measured from outside, so that the spectra know nothing of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend, Decoder
from llmtrap.spectra.backends.base import HostFloats
from llmtrap.spectra.together import Solver, Steps

Block = TypeVar("Block")
Result = TypeVar("Result")

READ = "read and decode"
GRAM = "Gram matrices"
EIGENVALUES = "eigenvalues"
OTHER = "sums, shuffles, fits"


class SharedSolver:
    """An eigensolver whose calls several matrices share: `share` is the part of the last call that each has to bear."""

    def __init__(self, solve: Solver):
        self._solve = solve
        self.share = 0.0

    def __call__(self, grams: Sequence[Array]) -> Sequence[NDArray[np.float64]]:
        """As the solver, timed."""
        start = time.perf_counter()
        try:
            return self._solve(grams)
        finally:
            self.share = (time.perf_counter() - start) / len(grams)


@dataclass
class Stages:
    """Seconds of one matrix: those of each stage, and `total`, which are all that it has taken."""

    seconds: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - start)

    def reading(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Pass blocks on, counting the time until each is there."""
        source = iter(blocks)
        while True:
            with self.of(READ):
                block = next(source, None)
            if block is None:
                return
            yield block

    def clocked(self, steps: Steps[Result], solver: SharedSolver) -> Steps[Result]:
        """Pass steps on and count their time, an equal share of every call of the solver included.

        The time in between, when other matrices have their turn, is not theirs.
        """
        move: Callable[[], Array] = partial(next, steps)
        while True:
            start = time.perf_counter()
            try:
                gram = move()
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self.total += time.perf_counter() - start
            try:
                move = partial(steps.send, (yield gram))
            except Exception as failure:
                move = partial(steps.throw, failure)
            del gram
            self._add(EIGENVALUES, solver.share)
            self.total += solver.share

    def finish(self) -> dict[str, float]:
        """All stages, what is left of the total under its own name."""
        rest = max(self.total - sum(self.seconds.values()), 0.0)
        return {**self.seconds, OTHER: rest}

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class TimedBackend:
    """A backend that counts the time its work takes."""

    def __init__(self, backend: Backend, stages: Stages):
        self._backend = backend
        self._stages = stages
        self.name = backend.name

    @property
    def decoder(self) -> Decoder | None:
        """As the backend: a device works while the host goes on, and what it takes shows where the host waits."""
        return self._backend.decoder

    def from_host(self, block: HostFloats) -> Array:
        """Counted with the Gram matrices: on a GPU it is a copy."""
        with self._stages.of(GRAM):
            return self._backend.from_host(block)

    def gram(self, size: int, dtype: str) -> Array:
        """As the backend."""
        return self._backend.gram(size, dtype)

    def add_gram(self, gram: Array, block: Array, *, transposed: bool = False, scale: float = 1.0) -> Array:
        """As the backend, counted."""
        with self._stages.of(GRAM):
            return self._backend.add_gram(gram, block, transposed=transposed, scale=scale)

    def subtract_gram(self, gram: Array, block: Array) -> Array:
        """As the backend, counted."""
        with self._stages.of(GRAM):
            return self._backend.subtract_gram(gram, block)

    def add_rank_two(self, gram: Array, x: HostFloats, y: HostFloats) -> Array:
        """As the backend, counted."""
        with self._stages.of(GRAM):
            return self._backend.add_rank_two(gram, x, y)

    def add_symmetric(self, gram: Array, change: HostFloats) -> Array:
        """As the backend, counted."""
        with self._stages.of(GRAM):
            return self._backend.add_symmetric(gram, change)

    def eigenvalues(self, gram: Array) -> NDArray[np.float64]:
        """As the backend, counted."""
        with self._stages.of(EIGENVALUES):
            return self._backend.eigenvalues(gram)

    def eigenvalues_of(self, grams: Sequence[Array]) -> list[NDArray[np.float64]]:
        """As the backend, counted."""
        with self._stages.of(EIGENVALUES):
            return self._backend.eigenvalues_of(grams)

    def top_eigenpairs(
        self, gram: Array, count: int, start: HostFloats, *, vectors: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """As the backend, counted."""
        with self._stages.of(EIGENVALUES):
            return self._backend.top_eigenpairs(gram, count, start, vectors=vectors)

    def count_above(self, gram: Array, edge: float) -> int:
        """As the backend, counted."""
        with self._stages.of(EIGENVALUES):
            return self._backend.count_above(gram, edge)

    def column_sums(self, block: Array) -> NDArray[np.float64]:
        """As the backend."""
        return self._backend.column_sums(block)
