"""What an encoding is: a way of finding stored tensors in a catalogue and turning their bytes into floats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry
    from llmtrap.packed import Packed

Floats = NDArray[np.floating]
ValueCounts = tuple[NDArray[np.float64], NDArray[np.int64]]

BLOCK_ENTRIES = 1 << 22
"""Entries decoded at one time unless a caller asks otherwise: 16 MiB of float32."""


@dataclass(frozen=True)
class StoredTensor(ABC):
    """A decoded view of one logical tensor: its values may come from several stored ones (MXFP4 blocks + scales).

    `name` is the main stored tensor; `module` is the name without storage suffix (`.weight`, `_blocks`, …), which is
    what families match; `shape` is the logical shape after decoding.
    """

    name: str
    module: str
    encoding: str
    shape: tuple[int, ...]
    parts: tuple[TensorEntry, ...]

    @property
    def rows(self) -> int:
        """Rows of the matrix, or of one slice of a stack."""
        return self.shape[-2]

    @property
    def columns(self) -> int:
        """Columns of the matrix, or of one slice of a stack."""
        return self.shape[-1]

    @property
    def stored_bytes(self) -> int:
        """Bytes as stored, scales and whatever else belongs to it included."""
        return sum(span.size for part in self.parts for span in part.spans)

    @property
    def stored_bits(self) -> float:
        """Bits a weight as stored."""
        return 8 * self.stored_bytes / max(1, math.prod(self.shape))

    @abstractmethod
    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """Bytes needed for rows [start, stop) of the matrix, or of slice `index` of axis 0 of a stack."""

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Those of the `spans` that every block of rows needs, whichever rows it has: they are read once for all.

        A tensor that is stored transposed is needed whole for any row, tables and global scales for all.
        """
        del index
        return ()

    @abstractmethod
    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Return rows [start, stop) as a contiguous [stop - start, columns] float array, in `out` where given."""

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """What `decode` returns: float64 where the file holds float64, else float32."""
        return np.dtype(np.float32)

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor | None:
        """The same entries, last dimension fastest, in another shape; None where this storage has no such view."""
        del shape
        return None

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """Rows [start, stop) as they are stored, undecoded, with what their codes stand for; or None.

        Decoded by the letter of `Packed` they equal what `decode` returns, bit for bit. None where the file holds
        floats as wide as those decoded, or where decoding takes more than a table and factors; nothing is read then.
        """
        del source, index, start, stop
        return None

    def histogram(self, source: Source, index: int | None) -> ValueCounts | None:
        """Every distinct value of the matrix, ascending, with how often it occurs, without decoding it; or None.

        None where the encoding has no alphabet of at most 65536 values. NaN, where there is any, is the last value.
        """
        del source, index
        return None


class Encoding(ABC):
    """Finds the tensors stored in one format. One subclass a file; `encodings/__init__` holds the table.

    `name` and `reads` are what the table of formats in docs/targets.md says of it.
    """

    name: str
    reads: str

    @abstractmethod
    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take from `free` the tensors of this encoding (removing all their parts), checked for consistency."""


def row_pieces(rows: int, columns: int, max_entries: int = BLOCK_ENTRIES) -> Iterator[tuple[int, int]]:
    """Cut rows into pieces [start, stop) of at most `max_entries` entries; a piece has one row at the least."""
    step = max(1, max_entries // max(1, columns))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def row_span(entry: TensorEntry, row_bytes: int, rows: int, index: int | None, start: int, stop: int) -> ByteRange:
    """The bytes of rows [start, stop) in slice `index` of a tensor whose rows lie one after the other.

    Args:
        entry: the stored tensor.
        row_bytes: bytes of one row.
        rows: rows of one slice.
        index: the slice of axis 0, or None for a tensor that is one matrix.
        start: first row within the slice.
        stop: row after the last.
    """
    first = (0 if index is None else index * rows) * row_bytes + entry.span.start
    return type(entry.span)(entry.span.file, first + start * row_bytes, first + stop * row_bytes)


def merged(values: NDArray[np.float64], counts: NDArray[np.int64]) -> ValueCounts:
    """Join equal values (0 and -0, or one value under several codes) and drop those that do not occur."""
    occurs = counts > 0
    distinct, inverse = np.unique(values[occurs], return_inverse=True)
    totals = np.zeros(distinct.size, dtype=np.int64)
    np.add.at(totals, inverse, counts[occurs])
    return distinct, totals
