"""Where the time of a matrix went, for `--verbose`: measured from outside, so that the spectra know nothing of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend, Decoder
from llmtrap.spectra.backends.base import HostFloats

Block = TypeVar("Block")
Result = TypeVar("Result")

READ = "read and decode"
GRAM = "Gram matrices"
EIGENVALUES = "eigenvalues"
OTHER = "sums, shuffles, fits"


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

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time of a block in the total."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.total += time.perf_counter() - start

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
