"""The spectrum of ΔW = W − W_base of changed matrices: norms and stable rank, read by blocks from both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import LlmtrapError
from llmtrap.gate.document import Update
from llmtrap.spectra.backends import Backend

Floats = NDArray[np.floating]

BLOCK_ENTRIES = 1 << 20


def measure_updates(
    pairs: Iterable[tuple[WeightMatrix, WeightMatrix]],
    source: Source,
    base: Source,
    backend: Backend,
    threads: int = 1,
    advance: Callable[[WeightMatrix], None] = lambda _: None,
) -> dict[str, Update]:
    """ΔW of each pair of one shape, by the id of the first.

    A pair that cannot be read, or holds what is no number, has none: the audit has said what is wrong with it.
    """

    def one(pair: tuple[WeightMatrix, WeightMatrix]) -> tuple[WeightMatrix, Update | None]:
        try:
            return pair[0], measure_update(*pair, source, base, backend)
        except LlmtrapError:
            return pair[0], None

    found = {}
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        for matrix, update in pool.map(one, pairs):
            if update is not None:
                found[matrix.id] = update
            advance(matrix)
    return found


def measure_update(
    matrix: WeightMatrix, other: WeightMatrix, source: Source, base: Source, backend: Backend
) -> Update | None:
    """‖ΔW‖₂ and ‖ΔW‖_F from the Gram matrix of ΔW's shorter side, and the entry that changed most.

    Memory: one block of each side and the Gram matrix; a matrix wider than tall is held whole, as in the audit.

    Returns:
        None where the shapes differ or an entry is NaN or infinite.
    """
    if matrix.shape != other.shape:
        return None
    sums = _Sums()
    side = min(matrix.shape)
    wide = matrix.shape[0] < matrix.shape[1]
    gram = backend.gram(side, "float32")
    held: list[Floats] = []
    blocks = zip(matrix.blocks(source, BLOCK_ENTRIES), other.blocks(base, BLOCK_ENTRIES), strict=True)
    for now, was in _aligned(blocks):
        change = np.subtract(now, was, dtype=np.float32)
        if not sums.add(change, now, was):
            return None
        if wide:
            held.append(change)
        else:
            gram = backend.add_gram(gram, backend.from_host(change))
    if wide:
        gram = backend.add_gram(gram, backend.from_host(np.concatenate(held)), transposed=True)
    largest = 0.0
    if sums.change > 0:
        start = np.random.default_rng(0).standard_normal(side)
        values, _ = backend.top_eigenpairs(gram, 1, start, vectors=False)
        largest = max(float(values[0]), 0.0)
    return Update(
        id=matrix.id,
        spectral_norm=math.sqrt(largest),
        frobenius_norm=math.sqrt(sums.change),
        stable_rank=sums.change / largest if largest > 0 else 0.0,
        relative=math.sqrt(sums.change / sums.base) if sums.base > 0 else None,
        row=sums.row,
        column=sums.column,
        was=sums.was,
        now=sums.now,
    )


class _Sums:
    """What one pass over the blocks adds up."""

    def __init__(self) -> None:
        self.change = self.base = 0.0
        self.row = self.column = 0
        self.was = self.now = 0.0
        self._largest = -1.0
        self._top = 0

    def add(self, change: Floats, now: Floats, was: Floats) -> bool:
        """Add a block; False where it holds what is no number."""
        total = float(np.vdot(change, change))
        if not math.isfinite(total):
            return False
        self.change += total
        self.base += float(np.vdot(was, was))
        place = int(np.abs(change).argmax())
        row, column = divmod(place, change.shape[1])
        if abs(float(change[row, column])) > self._largest:
            self._largest = abs(float(change[row, column]))
            self.row, self.column = self._top + row, column
            self.was, self.now = float(was[row, column]), float(now[row, column])
        self._top += change.shape[0]
        return True


def _aligned(blocks: Iterable[tuple[Floats, Floats]]) -> Iterator[tuple[Floats, Floats]]:
    """The pairs of blocks, refused where two encodings cut a matrix into different blocks."""
    for now, was in blocks:
        if now.shape != was.shape:
            raise LlmtrapError(f"blocks of {now.shape} and {was.shape} rows and columns do not fit")
        yield now, was
