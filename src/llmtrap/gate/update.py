"""What changed between two versions of a matrix: ΔW = W − W_base in one pass over blocks of both sides."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import LlmtrapError
from llmtrap.gate.document import Update
from llmtrap.spectra.backends import Backend
from llmtrap.spectra.settings import HELD_ENTRIES

Floats = NDArray[np.floating]

BLOCK_ENTRIES = 1 << 20
# A row or column is emptied where its norm fell under this share of the base's.
EMPTIED = 0.1


def measure_update(
    matrix: WeightMatrix, other: WeightMatrix, source: Source, base: Source, backend: Backend
) -> Update | None:
    """Norms of ΔW from the Gram matrix of its shorter side, the entry that changed most, and emptied rows and columns.

    A matrix that one side stores transposed is turned round. Memory: one block of each side and the Gram matrix; a
    matrix wider than tall is held whole, as in the audit, and so are both sides of a transposed one.

    Returns:
        None where the shapes differ, an entry is NaN or infinite, or a transposed matrix is too large to hold.
    """
    blocks = _blocks(matrix, other, source, base)
    if blocks is None:
        return None
    update = UpdatePass(matrix.id, matrix.shape, backend)
    for now, was in blocks:
        update.add(now, was)
        if update.broken:
            return None
    return update.finish()


class UpdatePass:
    """ΔW as the blocks of both sides pass by, top to bottom.

    Args:
        matrix: its id.
        shape: rows and columns.
        backend: where the Gram matrix is formed.
    """

    def __init__(self, matrix: str, shape: tuple[int, int], backend: Backend):
        self._id = matrix
        self._backend = backend
        self._wide = shape[0] < shape[1]
        self._side = min(shape)
        self._sums = _Sums(shape)
        self._gram = backend.gram(self._side, "float32")
        self._held: list[Floats] = []
        self.broken = False

    def add(self, now: Floats, was: Floats) -> None:
        """Take a block of each side.

        Raises:
            LlmtrapError: two encodings cut the matrix into different blocks.
        """
        if now.shape != was.shape:
            raise LlmtrapError(f"blocks of {now.shape} and {was.shape} rows and columns do not fit")
        if self.broken:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            change = np.subtract(now, was, dtype=np.float32)
            self.broken = not self._sums.add(change, now, was)
        if self.broken:
            self._held.clear()
        elif self._wide:
            self._held.append(change)
        else:
            self._gram = self._backend.add_gram(self._gram, self._backend.from_host(change))

    def finish(self) -> Update | None:
        """What changed; None where an entry was NaN or infinite."""
        if self.broken:
            return None
        sums, largest = self._sums, 0.0
        if sums.change > 0:
            if self._wide:
                whole = self._backend.from_host(np.concatenate(self._held))
                self._gram = self._backend.add_gram(self._gram, whole, transposed=True)
            start = np.random.default_rng(0).standard_normal(self._side)
            values, _ = self._backend.top_eigenpairs(self._gram, 1, start, vectors=False)
            largest = max(float(values[0]), 0.0)
        rows, columns = sums.emptied()
        return Update(
            id=self._id,
            spectral_norm=math.sqrt(largest),
            frobenius_norm=math.sqrt(sums.change),
            stable_rank=sums.change / largest if largest > 0 else 0.0,
            relative=math.sqrt(sums.change / sums.base) if sums.base > 0 else None,
            row=sums.row,
            column=sums.column,
            was=sums.was,
            now=sums.now,
            changed_rows=int((sums.rows_change > 0).sum()),
            emptied_rows=rows.size,
            emptied_columns=columns.size,
            first_emptied_row=int(rows[0]) if rows.size else None,
            first_emptied_column=int(columns[0]) if columns.size else None,
        )


def is_transposed(matrix: WeightMatrix, other: WeightMatrix, source: Source, base: Source) -> bool:
    """Whether the other side stores the matrix the other way round, as formats of stacked experts do.

    A square one does not show it by its shape: the smaller of the two changes tells.
    """
    if matrix.shape != other.shape[::-1]:
        return False
    if matrix.shape != other.shape:
        return True
    if matrix.encoding == other.encoding or matrix.index is other.index is None:
        return False
    if matrix.size > HELD_ENTRIES:
        return False
    now, was = matrix.read(source), other.read(base)
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.linalg.norm(now - was.T) < np.linalg.norm(now - was))


def _blocks(
    matrix: WeightMatrix, other: WeightMatrix, source: Source, base: Source
) -> Iterable[tuple[Floats, Floats]] | None:
    if is_transposed(matrix, other, source, base):
        if matrix.size > HELD_ENTRIES:
            return None
        return [(matrix.read(source), np.ascontiguousarray(other.read(base).T))]
    if matrix.shape != other.shape:
        return None
    return zip(matrix.blocks(source, BLOCK_ENTRIES), other.blocks(base, BLOCK_ENTRIES), strict=True)


def update_of(values: NDArray[np.float64], name: str, base_norm: float | None = None) -> Update:
    """Norms of ΔW from its singular values."""
    largest, total = float(values[0]), float((values**2).sum())
    return Update(
        id=name,
        spectral_norm=largest,
        frobenius_norm=math.sqrt(total),
        stable_rank=total / largest**2 if largest > 0 else 0.0,
        relative=math.sqrt(total) / base_norm if base_norm else None,
        rank=len(values),
    )


class _Sums:
    """What one pass over the blocks adds up."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.change = self.base = 0.0
        self.row = self.column = 0
        self.was = self.now = 0.0
        self.rows_change = np.zeros(shape[0])
        self._rows = np.zeros((2, shape[0]))
        self._columns = np.zeros((2, shape[1]))
        self._largest = -1.0
        self._top = 0

    def add(self, change: Floats, now: Floats, was: Floats) -> bool:
        """Add a block; False where it holds what is no number."""
        rows_change = np.einsum("ij,ij->i", change, change).astype(np.float64)
        total = float(rows_change.sum())
        if not math.isfinite(total):
            return False
        here = slice(self._top, self._top + change.shape[0])
        self.rows_change[here] = rows_change
        for side, block in enumerate((now, was)):
            squares = block * block
            self._rows[side, here] = squares.sum(axis=1)
            self._columns[side] += squares.sum(axis=0)
        self.change += total
        self.base += float(self._rows[1, here].sum())
        place = int(np.abs(change).argmax())
        row, column = divmod(place, change.shape[1])
        if abs(float(change[row, column])) > self._largest:
            self._largest = abs(float(change[row, column]))
            self.row, self.column = self._top + row, column
            self.was, self.now = float(was[row, column]), float(now[row, column])
        self._top += change.shape[0]
        return True

    def emptied(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns that this side has lost; what was next to nothing in the base does not count."""
        found = []
        for now, was in (self._rows, self._columns):
            lived = was > EMPTIED**2 * np.median(was)
            found.append(np.flatnonzero(lived & (now < EMPTIED**2 * was)))
        return found[0], found[1]
