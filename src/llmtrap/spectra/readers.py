"""What the spectra ask of a matrix: to be read top to bottom; and what is found where its entries are no numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmtrap.packed import Packed
from llmtrap.spectra.measured import NonFinite

Floats = NDArray[np.floating]
Histogram = tuple[NDArray[np.float64], NDArray[np.int64]]


class MatrixReader(Protocol):
    """A matrix that can be read top to bottom as often as needed.

    `shape` is rows × columns as stored.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def blocks(self) -> Iterator[Floats]:
        """Yield blocks of rows, float32 or float64; a block may be overwritten by the next."""
        ...

    def histogram(self) -> Histogram | None:
        """Values and how often each occurs, where the storage format makes that cheaper than decoding; else None."""
        ...

    def packed_blocks(self) -> Iterator[Packed] | None:
        """The blocks as they are stored, for a device to decode; None where only `blocks` has them."""
        ...


@dataclass(frozen=True)
class ArrayReader:
    """A matrix in memory."""

    array: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.array.shape
        return int(rows), int(columns)

    def blocks(self) -> Iterator[Floats]:
        """One block."""
        yield self.array

    def histogram(self) -> Histogram | None:
        """An array in memory is quickest summed as it is."""
        return None

    def packed_blocks(self) -> Iterator[Packed] | None:
        """An array in memory is decoded already."""
        return None


def as_floats(array: NDArray[np.generic]) -> Floats:
    """The array in a float width that holds its values: BLAS and the sums know float32 and float64 alone."""
    if array.dtype in (np.float32, np.float64):
        return np.asarray(array)
    return np.asarray(array, dtype=np.float32 if array.dtype.itemsize <= 2 else np.float64)


def locate_non_finite(blocks: Iterable[Floats], top: int = 0) -> NonFinite:
    """Count the entries that are no numbers and find the first, of blocks of rows that begin with row `top`."""
    nan = inf = 0
    first: tuple[int, int] | None = None
    for block in blocks:
        bad = ~np.isfinite(block)
        if bad.any():
            nans = int(np.isnan(block).sum())
            nan, inf = nan + nans, inf + int(bad.sum()) - nans
            if first is None:
                row, column = (int(k[0]) for k in np.nonzero(bad))
                first = (top + row, column)
        top += block.shape[0]
    row, column = first or (0, 0)
    return NonFinite(nan=nan, inf=inf, row=row, column=column)
