"""Entries of a shuffle that may have caused its traps, noted as its blocks pass by, with the rows they lie in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend

Floats = NDArray[np.floating]

# Rows kept, of the largest suspects; beyond this many suspects the smaller ones are cleared but not told apart.
MOST_SUSPECTS = 256


class Suspects:
    """Entries of one shuffle with |entry| ≥ `threshold`, in the order of their places.

    Rows are kept for the `MOST_SUSPECTS` largest, so that a shuffle drawn by blocks need not be drawn again.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.columns = np.zeros(0, dtype=np.int64)
        self.values = np.zeros(0, dtype=np.float32)
        self._rows = np.zeros(0, dtype=np.int64)
        self._kept = np.zeros(0, dtype=np.int64)
        self._contents = np.zeros((0, 0), dtype=np.float32)
        self._top = 0

    def watch(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        """Pass the blocks on unchanged, noting their suspects."""
        for block in blocks:
            row, column = self._places(block)
            if row.size:
                self._note(block, row, column)
            self._top += block.shape[0]
            yield block

    def cleared(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        """Pass the blocks on with their suspects set to the mean."""
        for block in blocks:
            block[self._places(block)] = 0
            yield block

    def kept_rows(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Rows of the largest suspects, one a suspect, and the suspects' numbers."""
        return self._contents, self._kept

    def cleared_gram(self, gram: Array, backend: Backend) -> Array | None:
        """The shuffle's Gram matrix as it were with all suspects at the mean; None where not all their rows are kept.

        Only the rows with a suspect change it: RᵀR − AᵀA + BᵀB, A being those rows and B the same rows cleared.
        """
        if self._kept.size < self.values.size:
            return None
        if not self.values.size:
            return gram
        _, first = np.unique(self._rows, return_index=True)
        before = self._contents[first]
        after = np.where(np.abs(before) >= self.threshold, np.float32(0), before)
        return backend.add_gram(backend.subtract_gram(gram, backend.from_host(before)), backend.from_host(after))

    def _places(self, block: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row, column = np.nonzero((block >= self.threshold) | (block <= -self.threshold))
        return row, column

    def _note(self, block: Floats, row: NDArray[np.int64], column: NDArray[np.int64]) -> None:
        numbers = np.arange(row.size) + self.values.size
        values = block[row, column].astype(np.float32)
        self._rows = np.concatenate([self._rows, row + self._top])
        self.columns = np.concatenate([self.columns, column])
        self.values = np.concatenate([self.values, values])
        largest = np.sort(np.argsort(-np.abs(values), kind="stable")[:MOST_SUSPECTS])
        rows = block[row[largest]].astype(np.float32)
        kept = np.concatenate([self._kept, numbers[largest]])
        contents = np.concatenate([self._contents.reshape(-1, block.shape[1]), rows])
        if kept.size > MOST_SUSPECTS:
            stay = np.sort(np.argsort(-np.abs(self.values[kept]), kind="stable")[:MOST_SUSPECTS])
            kept, contents = kept[stay], contents[stay]
        self._kept, self._contents = kept, contents
