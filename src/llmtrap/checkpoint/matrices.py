"""Catalogue and family together: the weight matrices of a checkpoint, each readable by blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import BLOCK_ENTRIES, row_pieces
from llmtrap.checkpoint.sources.held import HeldRanges

if TYPE_CHECKING:
    from llmtrap.checkpoint.encodings.base import StoredTensor, ValueCounts
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.packed import Packed

Floats = NDArray[np.floating]

_RUN = 16  # blocks of stripes with fewer rows than this are read together with what lies between them


@dataclass(frozen=True)
class Stripes:
    """Indices offset, offset+1, …, of equal blocks at equal strides: halves, interleaved rows, per-head groups.

    Index k of the selection is offset + (k // block) * stride + k % block, for k in [0, count).
    """

    offset: int
    stride: int
    block: int
    count: int

    @property
    def end(self) -> int:
        """One more than the last index."""
        last = self.count - 1
        return self.offset + (last // self.block) * self.stride + last % self.block + 1

    def indices(self, start: int = 0, stop: int | None = None) -> NDArray[np.intp]:
        """The indices of the selection's elements [start, stop)."""
        k = np.arange(start, self.count if stop is None else stop, dtype=np.intp)
        return self.offset + (k // self.block) * self.stride + k % self.block

    def runs(self) -> Iterator[tuple[int, int]]:
        """Stored ranges [start, stop) that hold the selection in order: whole blocks, touching ones joined."""
        if self.stride == self.block:
            yield self.offset, self.offset + self.count
            return
        for first in range(0, self.count, self.block):
            start = self.offset + first // self.block * self.stride
            yield start, start + min(self.block, self.count - first)


@dataclass(frozen=True)
class WeightMatrix:
    """One weight matrix: what it is called, where it lies, and how to read it.

    `id` is canonical and does not depend on the storage format; `part` is the part of the model (text, vision, …);
    `shape` is (rows, columns) as stored, of this matrix alone; `index` selects a slice of axis 0 of a fused
    three-dimensional tensor; `rows`/`columns` select a part of a fused matrix (`--split-fused`). `aliases` are other
    canonical ids that share these weights (tied embeddings).
    """

    id: str
    layer: int | None
    role: str
    expert: int | None
    shape: tuple[int, int]
    stored: StoredTensor
    index: int | None = None
    rows: Stripes | None = None
    columns: Stripes | None = None
    aliases: tuple[str, ...] = ()
    part: str = "text"

    @property
    def tensor(self) -> str:
        """Name of the (main) stored tensor."""
        return self.stored.name

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all stored tensors that this matrix is read from (MXFP4: blocks and scales)."""
        return tuple(part.name for part in self.stored.parts)

    @property
    def encoding(self) -> str:
        """Name of the storage format, as reports print it."""
        return self.stored.encoding

    @property
    def bits(self) -> float:
        """Bits a weight as stored, scales included."""
        return self.stored.stored_bits

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    def share_of(self, stored_bytes: int) -> int:
        """Of the bytes of its stored tensor those of this matrix: of a stack or a fused tensor its share."""
        return stored_bytes * self.size // math.prod(self.stored.shape)

    def spans(self, max_entries: int = BLOCK_ENTRIES) -> tuple[ByteRange, ...]:
        """The ranges that `blocks` opens with the same `max_entries`, in that order; shared ones come once."""
        pieces = [self.stored.spans(self.index, start, stop) for start, stop, _ in self._pieces(max_entries)]
        shared = dict.fromkeys(self.stored.shared_spans(self.index))
        return (*shared, *(span for spans in pieces for span in spans if span not in shared))

    def blocks(self, source: Source, max_entries: int = BLOCK_ENTRIES) -> Iterator[Floats]:
        """Yield the matrix top to bottom as contiguous [n, columns] float arrays, none over `max_entries` entries.

        float64 where the file holds float64, else float32: every supported encoding of 16 bits or less is exact there.
        The array yielded may be reused for the next block. One stored row is read at the least, whatever its length.

        Raises:
            CheckpointError: the file changed or was cut short since the catalogue was read.
        """
        source = self._holding_shared(source)
        buffer: Floats = np.empty(0, dtype=self.stored.dtype)
        taken = None if self.columns is None else self.columns.indices()
        for start, stop, picked in self._pieces(max_entries):
            entries = (stop - start) * self.stored.columns
            if buffer.size < entries:
                buffer = np.empty(entries, dtype=self.stored.dtype)
            out = buffer[:entries].reshape(stop - start, self.stored.columns)
            block = self.stored.decode(source, self.index, start, stop, out)
            if picked is not None:
                block = block[picked]
            yield block if taken is None else np.ascontiguousarray(block[:, taken])

    def packed_blocks(self, source: Source, max_entries: int = BLOCK_ENTRIES) -> Iterator[Packed] | None:
        """The same blocks as they are stored, to be decoded elsewhere; None where only `blocks` reads this matrix.

        Every block has arrays of its own. The first is read at once, the others as they are asked for.

        Raises:
            CheckpointError: the file changed or was cut short since the catalogue was read.
        """
        blocks = self._packed(source, max_entries)
        first = next(blocks, None)
        return None if first is None else chain([first], blocks)

    def _packed(self, source: Source, max_entries: int) -> Iterator[Packed]:
        source = self._holding_shared(source)
        taken = None if self.columns is None else self.columns.indices()
        for start, stop, picked in self._pieces(max_entries):
            packed = self.stored.packed(source, self.index, start, stop)
            if packed is None:
                return
            yield packed if picked is None and taken is None else replace(packed, rows=picked, columns=taken)

    def read(self, source: Source) -> Floats:
        """The whole matrix in one new array."""
        whole = np.empty(self.shape, dtype=self.stored.dtype)
        start = 0
        for block in self.blocks(source):
            whole[start : start + len(block)] = block
            start += len(block)
        return whole

    def rows_at(self, source: Source, rows: Iterable[int]) -> dict[int, Floats]:
        """Some rows by their numbers, each read by itself."""
        source = self._holding_shared(source)
        taken = None if self.columns is None else self.columns.indices()
        found = {}
        for row in sorted(set(rows)):
            start = row if self.rows is None else int(self.rows.indices(row, row + 1)[0])
            whole = self.stored.decode(source, self.index, start, start + 1)[0]
            found[row] = whole if taken is None else whole[taken]
        return found

    def histogram(self, source: Source) -> ValueCounts | None:
        """Every distinct value, ascending, with its count, without decoding the matrix.

        None where the storage format has no alphabet of at most 65536 values, or this is a part of a fused matrix.
        """
        if self.rows is not None or self.columns is not None:
            return None
        return self.stored.histogram(source, self.index)

    def _holding_shared(self, source: Source) -> Source:
        """The source for one pass over the blocks: what all of them share is read once."""
        shared = self.stored.shared_spans(self.index)
        return HeldRanges(source, shared) if shared else source

    def _pieces(self, max_entries: int) -> Iterator[tuple[int, int, NDArray[np.intp] | None]]:
        """Stored rows [start, stop) to read at one time, and which of them (from 0) are this matrix's."""
        columns = self.stored.columns
        if self.rows is None:
            for start, stop in row_pieces(self.stored.rows, columns, max_entries):
                yield start, stop, None
        elif self.rows.stride == self.rows.block or self.rows.block >= _RUN:
            for first, last in self.rows.runs():
                for start, stop in row_pieces(last - first, columns, max_entries):
                    yield first + start, first + stop, None
        else:
            for first, last in row_pieces(self.rows.count, columns * self.rows.stride // self.rows.block, max_entries):
                chosen = self.rows.indices(first, last)
                start, stop = int(chosen[0]), int(chosen[-1]) + 1
                yield start, stop, chosen - start
