"""Plain numbers that do not lie row after row: transposed views, parts of larger storages, tensors cut into chunks.

They are gathered into rows as they are read; a transposed matrix is needed whole for any of its rows, so up to a limit
it is read once and kept for one pass, and beyond it column by column.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import Encoding, Floats, StoredTensor, ValueCounts, merged, row_pieces
from llmtrap.checkpoint.encodings.plain import DTYPES, PlainTensor, alphabet, count_codes, pack, widen
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.packed import Packed

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import Source
    from llmtrap.checkpoint.tensors import Catalogue, Chunk, TensorEntry

HELD_BYTES = 256 << 20
"""A transposed chunk up to this size is read whole, once a pass."""

_WASTE = 2  # bytes read for each byte used, up to which one range is read rather than many
_CODES: dict[int, type[np.unsignedinteger]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class _Piece:
    """Rows [top, top + height) and columns [left, left + width) of a block of rows, from one chunk.

    The first of its elements lies at byte `start` of the file; neighbours lie `strides` (down, across) elements apart.
    """

    chunk: Chunk
    start: int
    top: int
    left: int
    height: int
    width: int
    strides: tuple[int, int]

    def reach(self, height: int, width: int) -> int:
        """Elements from the first of so many rows and columns to the last, both included."""
        return (height - 1) * self.strides[0] + (width - 1) * self.strides[1] + 1


@dataclass(frozen=True)
class _GatheredTensor(PlainTensor):
    """A tensor of one floating-point number an element, whose rows are put together as they are read."""

    @abstractmethod
    def _gathered(self, source: Source, index: int | None, start: int, stop: int) -> NDArray[np.uint8]:
        """The rows' bytes as if they lay one after the other."""

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Gather the rows and widen them; values are not changed."""
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=self.dtype)
        widen(self._gathered(source, index, start, stop), self.encoding, out)
        return out

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """The codes of the rows, for formats of at most 16 bits."""
        if self._width > 2:
            return None
        return pack(self._gathered(source, index, start, stop), self.encoding, stop - start)

    def histogram(self, source: Source, index: int | None) -> ValueCounts | None:
        """Count the codes, for formats of at most 16 bits."""
        if self._width > 2 or self.shared_spans(index):
            return None
        counts = np.zeros(1 << (8 * self._width), dtype=np.int64)
        for start, stop in row_pieces(self.rows, self.columns):
            codes = self._gathered(source, index, start, stop)
            count_codes(codes if self._width == 1 else codes.view(np.uint16), counts)
        with np.errstate(invalid="ignore"):
            values = alphabet(self.encoding).astype(np.float64)
        return merged(values, counts)

    @property
    def _width(self) -> int:
        return DTYPES[self.encoding].itemsize


@dataclass(frozen=True)
class ChunkedTensor(_GatheredTensor):
    """A matrix or a stack whose one part has chunks."""

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """Every range that is read for the rows."""
        return tuple(span for piece in self._pieces(index, start, stop) for span, _ in self._reads(piece))

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Transposed chunks that are read whole."""
        pieces = self._pieces(index, 0, self.rows)
        return tuple(dict.fromkeys(piece.chunk.span for piece in pieces if _is_held(piece)))

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor | None:
        """A kernel or a table as a matrix of rows: where the rows themselves lie at one stride, else None."""
        (part,) = self.parts
        chunk = part.chunks[0]
        rows, columns = math.prod(shape[:-1]), shape[-1]
        outer = next((k for k in range(len(part.shape)) if math.prod(part.shape[:k]) == rows), None)
        if len(part.chunks) > 1 or chunk.shape != part.shape or outer is None or len(shape) > 2:
            return None
        step = _one_stride(part.shape[:outer], chunk.strides[:outer])
        inner = tuple((n, by) for n, by in zip(part.shape[outer:], chunk.strides[outer:], strict=True) if n > 1)
        if step is None or math.prod(n for n, _ in inner) != columns:
            return None
        view = StridedRows(self.name, self.module, self.encoding, shape, self.parts, step, inner)
        return view if view.apart or chunk.span.size <= HELD_BYTES else None

    def _gathered(self, source: Source, index: int | None, start: int, stop: int) -> NDArray[np.uint8]:
        """The rows' bytes as if they lay one after the other."""
        codes = np.empty((stop - start, self.columns), dtype=_CODES[self._width])
        for piece in self._pieces(index, start, stop):
            block = codes[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width]
            for span, (rows, columns) in self._reads(piece):
                with source.open(span) as data:
                    part = block[rows, columns]
                    offset = piece.start - span.start if _is_held(piece) else 0
                    numbers = data[offset : offset + piece.reach(*part.shape) * self._width].view(codes.dtype)
                    part[...] = np.lib.stride_tricks.as_strided(
                        numbers, part.shape, tuple(self._width * stride for stride in piece.strides), writeable=False
                    )
        return codes.reshape(-1).view(np.uint8)

    def _pieces(self, index: int | None, start: int, stop: int) -> Iterator[_Piece]:
        for chunk in self.parts[0].chunks:
            place = chunk.span.start
            if index is not None:
                k = index - chunk.offsets[0]
                if not 0 <= k < chunk.shape[0]:
                    continue
                place += k * chunk.strides[0] * self._width
            (top, left), (height, width) = chunk.offsets[-2:], chunk.shape[-2:]
            first, last = max(start, top), min(stop, top + height)
            if first < last and width:
                down, across = chunk.strides[-2:]
                place += (first - top) * down * self._width
                yield _Piece(chunk, place, first - start, left, last - first, width, (down, across))

    def _reads(self, piece: _Piece) -> Iterator[tuple[ByteRange, tuple[slice, slice]]]:
        """The ranges to read, each with the rows and columns of the piece that it holds."""
        everything = slice(None)
        if _is_held(piece):
            yield piece.chunk.span, (everything, everything)
            return
        file, size = piece.chunk.span.file, self._width
        if piece.reach(piece.height, piece.width) <= _WASTE * piece.height * piece.width:
            stop = piece.start + piece.reach(piece.height, piece.width) * size
            yield ByteRange(file, piece.start, stop), (everything, everything)
            return
        by_rows = piece.strides[0] >= piece.strides[1]
        step = (piece.strides[0] if by_rows else piece.strides[1]) * size
        run = piece.reach(1, piece.width) if by_rows else piece.reach(piece.height, 1)
        for k in range(piece.height if by_rows else piece.width):
            one, start = slice(k, k + 1), piece.start + k * step
            yield ByteRange(file, start, start + run * size), (one, everything) if by_rows else (everything, one)


@dataclass(frozen=True)
class StridedRows(_GatheredTensor):
    """A matrix whose rows begin `step` elements apart and are wound up in dimensions (size, stride) themselves.

    So lie the kernels of a convolution in the memory format that keeps their channels last.
    """

    step: int
    inner: tuple[tuple[int, int], ...]

    @property
    def apart(self) -> bool:
        """Whether a row ends before the next begins, so that rows are ranges of the file."""
        return self.rows == 1 or self.step >= self._reach

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The range that holds the rows; the whole tensor where they lie among one another."""
        del index
        (whole,) = self.parts[0].spans
        if not self.apart:
            return (whole,)
        first = whole.start + start * self.step * self._width
        return (ByteRange(whole.file, first, first + ((stop - start - 1) * self.step + self._reach) * self._width),)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """The whole tensor, where its rows lie among one another."""
        del index
        return () if self.apart else self.parts[0].spans

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor | None:
        """Only as it is."""
        return self if shape == self.shape else None

    @property
    def _reach(self) -> int:
        """Elements from the first of a row to its last, both included."""
        return 1 + sum((size - 1) * stride for size, stride in self.inner)

    def _gathered(self, source: Source, index: int | None, start: int, stop: int) -> NDArray[np.uint8]:
        (span,) = self.spans(index, start, stop)
        sizes, strides = [stop - start, *(size for size, _ in self.inner)], [self.step, *(by for _, by in self.inner)]
        first = 0 if self.apart else start * self.step * self._width
        with source.open(span) as data:
            numbers = data[first:].view(_CODES[self._width])
            by = tuple(self._width * stride for stride in strides)
            rows = np.lib.stride_tricks.as_strided(numbers, tuple(sizes), by, writeable=False)
            return np.array(rows, order="C").reshape(-1).view(np.uint8)


class Chunked(Encoding):
    """Takes the tensors that have chunks, before any encoding that reads rows as they lie."""

    name = "chunked"
    reads = "the same numbers in strides or in chunks"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:  # noqa: ARG002
        """Take those of a floating-point dtype; the others hold no numbers that any encoding could read in chunks."""
        found: list[StoredTensor] = []
        for entry in [entry for entry in free.values() if entry.chunks and entry.dtype in DTYPES]:
            del free[entry.name]
            module = entry.name.removesuffix(".weight")
            found.append(ChunkedTensor(entry.name, module, entry.dtype, entry.shape, (entry,)))
        return found


def _is_held(piece: _Piece) -> bool:
    return piece.strides[1] > piece.strides[0] and piece.width > 1 and piece.chunk.span.size <= HELD_BYTES


def _one_stride(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The step from one to the next of all combinations of these dimensions, the last fastest; None where it varies."""
    step, reach = None, 0
    for size, stride in reversed([pair for pair in zip(sizes, strides, strict=True) if pair[0] > 1]):
        if step is None:
            step, reach = stride, stride * size
        elif stride == reach:
            reach = stride * size
        else:
            return None
    return 0 if step is None else step
