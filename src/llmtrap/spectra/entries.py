"""The entries of one matrix as a shuffle takes them: centred, in units of the bulk, in memory or as a histogram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.certificate import Bulk
from llmtrap.spectra.moments import Moments, moments_of_blocks, moments_of_histogram
from llmtrap.spectra.shuffle import drawn_from_histogram, shuffled_blocks

Floats = NDArray[np.floating]

# Standardised entries are kept in float32: what is larger counts as this.
_GREATEST = 1e38
# Entries of a block of a shuffle: enough rows that its Gram matrix is as fast as that of the whole.
BLOCK_ENTRIES = 1 << 22


class Entries(Protocol):
    """The entries of one matrix, centred and in units of the bulk's deviation, to be shuffled.

    `shape` is N × M with N ≥ M: after a shuffle the orientation means nothing.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """N and M."""
        ...

    @property
    def largest(self) -> float:
        """The largest |entry|."""
        ...

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the rows of one shuffle R as float32 [n, M] arrays that the caller may overwrite."""
        ...

    def split(self, distance: float, most: int) -> tuple[NDArray[np.float32], Moments] | None:
        """The entries with |entry| ≥ distance, and the moments of the rest; None where they are more than `most`."""
        ...


@dataclass(frozen=True)
class HeldEntries:
    """Entries in memory, flat or as a matrix."""

    values: Floats
    shape: tuple[int, int]
    largest: float

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Blocks of rows, never the whole."""
        for block in shuffled_blocks(self.values, _block_entries(self.shape[1]), rng):
            yield block.reshape(-1, self.shape[1])

    def split(self, distance: float, most: int) -> tuple[NDArray[np.float32], Moments] | None:
        """One pass over them."""
        far = (self.values >= distance) | (self.values <= -distance)
        if int(far.sum()) > most:
            return None
        return self.values[far].astype(np.float32, copy=False), moments_of_blocks([self.values[~far]])


@dataclass(frozen=True)
class CountedEntries:
    """Entries known by how often each value occurs."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    shape: tuple[int, int]
    largest: float

    def shuffled_blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Blocks of rows, never the whole."""
        for block in drawn_from_histogram(self.values, self.counts, _block_entries(self.shape[1]), rng):
            yield block.reshape(-1, self.shape[1])

    def split(self, distance: float, most: int) -> tuple[NDArray[np.float32], Moments] | None:
        """From the counts alone."""
        far = np.abs(self.values) >= distance
        if int(self.counts[far].sum()) > most:
            return None
        rest = moments_of_histogram(self.values[~far], self.counts[~far])
        return np.repeat(self.values[far].astype(np.float32), self.counts[far]), rest


def _block_entries(columns: int) -> int:
    return max(1, BLOCK_ENTRIES // columns) * columns


def standardise(entries: Floats, bulk: Bulk) -> NDArray[np.float32]:
    """(w − m)/s as float32, through float64 where m or s leave float32's safe range.

    The same entry gives the same bits wherever it is standardised, so that an entry of a shuffle can be recognised.
    """
    wide = entries.dtype == np.float64 or not 1e-30 < bulk.deviation < 1e30 or abs(bulk.mean) > bulk.deviation
    kind = np.float64 if wide else np.float32
    centred = np.subtract(entries, kind(bulk.mean), dtype=kind)
    with np.errstate(over="ignore"):
        centred /= kind(bulk.deviation)
    return np.clip(centred, -_GREATEST, _GREATEST, out=centred).astype(np.float32, copy=False)
