"""Tensors of codes, which stand for numbers of a table, with factors and terms: what quantised formats have in common.

Such a tensor says once what it is, as `Packed`; a device is sent that, and the host decodes it here, to the same bits.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import Floats, StoredTensor
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import Source

Codes = NDArray[np.uint8]
Floats32 = NDArray[np.float32]

_WORDS: dict[int, type[np.generic]] = {
    4: np.uint32,
    8: np.uint64,
    16: np.complex128,
}  # moved whole, never computed with


class CodedTensor(StoredTensor):
    """A tensor that `packed` describes completely."""

    @abstractmethod
    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """Rows [start, stop) as codes, with what they stand for."""

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Look the codes up, multiply and add, in float32."""
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=np.float32)
        unpack(self.packed(source, index, start, stop), out)
        return out


def unpack(packed: Packed, out: Floats) -> None:
    """Decode a block on the host.

    Args:
        packed: codes of one byte each, of all rows and columns of the block.
        out: contiguous float32 of the block's shape.
    """
    table = np.ascontiguousarray(packed.table)
    word = _WORDS[table.shape[1] * 4]
    np.take(table.view(word).ravel(), packed.codes, out=out.view(word), mode="clip")
    # 448 · 3e38 has no float32, and NaN is one of the codes: infinite or NaN, and reported as such by who asked.
    with np.errstate(over="ignore", invalid="ignore"):
        for tiles in packed.tiles:
            _apply(tiles, out)


def _apply(tiles: Tiles, out: Floats) -> None:
    """Multiply every entry by its tile's number, or add that to it."""
    operation = np.multiply if tiles.operation == "multiply" else np.add
    numbers = tiles.factors if tiles.table is None else tiles.table[tiles.factors]
    rows, columns = out.shape
    one_number = numbers.shape[1] == 1 and tiles.columns is None
    even = tiles.columns is None and columns == numbers.shape[1] * tiles.width
    if tiles.columns is not None:
        numbers = numbers[:, tiles.columns]
    elif not one_number and not even:
        numbers = np.repeat(numbers, tiles.width, axis=1)[:, :columns]
    for first, last, tile_row in _row_runs(tiles, rows, numbers.shape[0]):
        block, of_block = out[first:last], numbers[tile_row : tile_row + (last - first if tiles.height == 1 else 1)]
        if even and not one_number and tiles.width > 1:
            block, of_block = block.reshape(last - first, -1, tiles.width), of_block[:, :, None]
        operation(block, of_block, out=block)


def _row_runs(tiles: Tiles, rows: int, tile_rows: int) -> list[tuple[int, int, int]]:
    """Rows [first, last) of the block and the tile row that they begin with: one run where tiles are one row high."""
    if tiles.height == 1:
        return [(0, rows, tiles.above)]
    starts = [max(0, k * tiles.height - tiles.above) for k in range(tile_rows)]
    return [(first, last, k) for k, (first, last) in enumerate(zip(starts, [*starts[1:], rows], strict=True))]


@cache
def pairs_of(values: tuple[float, ...], *, high_first: bool = False) -> Floats32:
    """The two numbers of every byte of two 4-bit codes: [256, 2]."""
    numbers = np.array(values, dtype=np.float32)
    halves = [np.tile(numbers, 16), np.repeat(numbers, 16)]
    return _frozen(np.stack(halves[::-1] if high_first else halves, axis=1))


@cache
def quads_of(values: tuple[float, ...]) -> Floats32:
    """The four numbers of every byte of four 2-bit codes, the lowest bits first: [256, 4]."""
    numbers = np.array(values, dtype=np.float32)
    codes = np.arange(256)
    return _frozen(np.stack([numbers[codes >> shift & 3] for shift in (0, 2, 4, 6)], axis=1))


@cache
def integers(offset: int = 0, *, signed: bool = False) -> Floats32:
    """What bytes stand for that are integers less an offset: [256, 1]."""
    codes = np.arange(256, dtype=np.uint8)
    numbers = (codes.view(np.int8) if signed else codes).astype(np.float32) - np.float32(offset)
    return _frozen(numbers.reshape(-1, 1))


@cache
def signed_nibbles() -> Floats32:
    """What bytes below 16 stand for that are signed 4-bit integers: [256, 1]."""
    table = np.zeros((256, 1), dtype=np.float32)
    table[:16, 0] = [*range(8), *range(-8, 0)]
    return _frozen(table)


def nibbles(data: Codes, *, high_first: bool = False) -> Codes:
    """The 4-bit codes of bytes, one a byte, along the last axis."""
    halves = [data & np.uint8(15), data >> np.uint8(4)]
    pairs = np.stack(halves[::-1] if high_first else halves, axis=-1)
    return pairs.reshape(*data.shape[:-1], -1)


def bit_fields(words: NDArray[np.uint32], bits: int, count: int, *, dense: bool = True) -> Codes:
    """Codes of `bits` bits each out of 32-bit words along the last axis, the lowest bits first, one a byte.

    Args:
        words: [..., words].
        bits: 1 to 8.
        count: codes wanted along the last axis.
        dense: whether codes run on from one word into the next; else each word holds as many whole codes as it can.
    """
    if 32 % bits == 0:
        in_bytes = words.view(np.uint8)
        if bits == 8:
            return in_bytes[..., :count]
        mask = np.uint8((1 << bits) - 1)
        fields = np.stack([in_bytes >> np.uint8(shift) & mask for shift in range(0, 8, bits)], axis=-1)
        return fields.reshape(*words.shape[:-1], -1)[..., :count]
    each = 32 // bits
    positions = np.arange(count) * bits if dense else np.arange(count) // each * 32 + np.arange(count) % each * bits
    low = words.astype(np.uint64)
    following = np.zeros_like(low)
    following[..., :-1] = low[..., 1:] << np.uint64(32)
    wide = low | following
    shifted: NDArray[np.uint64] = wide[..., positions // 32] >> (positions % 32).astype(np.uint64)
    return (shifted & np.uint64((1 << bits) - 1)).astype(np.uint8)


def coded_words(words: NDArray[np.uint32], bits: int, count: int, *, dense: bool = True) -> tuple[Codes, Floats32]:
    """Words of unsigned integers as codes and what they stand for: left as they lie where whole bytes have a table.

    Args:
        words: contiguous [rows, words].
        bits: of one integer.
        count: integers of one row.
        dense: as in `bit_fields`.
    """
    if 32 % bits == 0 and words.shape[-1] * 32 == count * bits and bits in (2, 4):
        return words.view(np.uint8), _WHOLE_BYTES[bits](tuple(map(float, range(1 << bits))))
    return bit_fields(words, bits, count, dense=dense), integers()


def _frozen(table: Floats32) -> Floats32:
    """One object that nobody changes: a device is sent it once."""
    table.flags.writeable = False
    return table


_WHOLE_BYTES = {2: quads_of, 4: pairs_of}
