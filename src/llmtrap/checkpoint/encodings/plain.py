"""Tensors stored as one number an element: F64, F32, F16, BF16 and the two common FP8 formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import (
    Encoding,
    Floats,
    StoredTensor,
    ValueCounts,
    merged,
    row_pieces,
    row_span,
)
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Bytes, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

Codes = NDArray[np.uint8] | NDArray[np.uint16]

DTYPES: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}

_COUNTED = 1 << 18  # codes counted at once: large enough to pay for the table, small enough to stay in cache


@dataclass(frozen=True)
class PlainTensor(StoredTensor):
    """A tensor of one floating-point number an element."""

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """float64 for F64, else float32, which holds every narrower format exactly."""
        return np.dtype(np.float64) if self.encoding == "F64" else np.dtype(np.float32)

    @property
    def stored_bits(self) -> float:
        """Those of one number: it may lie between others that are not its own."""
        return 8.0 * DTYPES[self.encoding].itemsize

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows: one range."""
        row_bytes = self.columns * DTYPES[self.encoding].itemsize
        return (row_span(self.parts[0], row_bytes, self.rows, index, start, stop),)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Widen the rows; values are not changed."""
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=self.dtype)
        (span,) = self.spans(index, start, stop)
        if DTYPES[self.encoding] == self.dtype and out.flags.c_contiguous:
            # Stored as it is decoded: no step between the file and the array.
            source.read_into(span, out.reshape(-1).view(np.uint8))
            return out
        with source.open(span) as data:
            widen(data, self.encoding, out)
        return out

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor | None:
        """Numbers that follow one another have every shape of as many."""
        return replace(self, shape=shape)

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """The codes of the rows, for formats of at most 16 bits."""
        if DTYPES[self.encoding].itemsize > 2:
            return None
        (span,) = self.spans(index, start, stop)
        return pack(source.read(span), self.encoding, stop - start)

    def histogram(self, source: Source, index: int | None) -> ValueCounts | None:
        """Count the codes, for formats of at most 16 bits."""
        width = DTYPES[self.encoding].itemsize
        if width > 2:
            return None
        counts = np.zeros(1 << (8 * width), dtype=np.int64)
        for start, stop in row_pieces(self.rows, self.columns):
            (span,) = self.spans(index, start, stop)
            with source.open(span) as data:
                count_codes(_as_codes(data, width), counts)
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            values = alphabet(self.encoding).astype(np.float64)
        return merged(values, counts)


class Plain(Encoding):
    """Takes every tensor of a floating-point dtype that no other encoding took."""

    name = "plain"
    reads = "F64, F32, F16, BF16, F8_E4M3, F8_E5M2, one number an element"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:  # noqa: ARG002
        """Take them all, whatever their shape: what is no matrix is sorted out later."""
        found: list[StoredTensor] = []
        for entry in [entry for entry in free.values() if entry.dtype in DTYPES]:
            del free[entry.name]
            module = entry.name.removesuffix(".weight")
            found.append(PlainTensor(entry.name, module, entry.dtype, entry.shape, (entry,)))
        return found


def widen(data: Bytes, dtype: str, out: Floats) -> None:
    """Write the numbers stored in `data` into `out`, of the same number of elements."""
    flat = out.reshape(-1)
    if dtype == "BF16" and out.dtype == np.float32:
        # A bfloat16 is the upper half of a float32: shifting is several times faster than the general cast.
        np.left_shift(data.view("<u2"), np.uint32(16), out=flat.view(np.uint32), dtype=np.uint32)
    elif dtype.startswith("F8"):
        np.take(alphabet(dtype), data, out=flat, mode="clip")
    else:
        with np.errstate(invalid="ignore"):
            flat[...] = data.view(DTYPES[dtype])


@cache
def alphabet(dtype: str) -> NDArray[np.float32]:
    """The value of every code of a format of 8 or 16 bits."""
    width = DTYPES[dtype].itemsize
    codes = np.arange(1 << (8 * width), dtype=np.uint8 if width == 1 else np.dtype("<u2"))
    with np.errstate(invalid="ignore"):
        values: NDArray[np.float32] = codes.view(DTYPES[dtype]).astype(np.float32)
    values.flags.writeable = False
    return values


def pack(data: Bytes, dtype: str, rows: int, tiles: tuple[Tiles, ...] = ()) -> Packed:
    """Codes of 8 or 16 bits with the numbers they stand for, and what those are multiplied by."""
    # Signed, since PyTorch computes little with unsigned words.
    codes = data if DTYPES[dtype].itemsize == 1 else data.view(np.int16)
    return Packed(codes.reshape(rows, -1), _table(dtype), tiles)


@cache
def _table(dtype: str) -> NDArray[np.float32]:
    """The alphabet as `Packed` has it: one object, so that a device is sent it once."""
    return alphabet(dtype).reshape(-1, 1)


def _as_codes(data: Bytes, width: int) -> Codes:
    return data if width == 1 else data.view(np.uint16)


def count_codes(codes: Codes, counts: NDArray[np.int64]) -> None:
    """Add to `counts` how often each code occurs."""
    for start in range(0, codes.size, _COUNTED):
        counts += np.bincount(codes[start : start + _COUNTED], minlength=counts.size)
