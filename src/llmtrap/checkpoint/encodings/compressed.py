"""compressed-tensors' packed integers: `X.weight_packed`, 32-bit words of codes along the rows, scales and zero points.

A code of b bits stands for itself less 2^(b-1); a weight is (code - zero point) · scale. Zero points are packed in the
same way along the *other* axis. With an act order, `X.weight_g_idx` gives the group of every column. Codes of 3, 5, 6
and 7 bits run on from word to word; before release 0.10 each word held whole codes: the packed width tells which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor, bit_fields, integers, pairs_of
from llmtrap.checkpoint.encodings.grids import INTEGERS, Grid, broken, fit_grid, misfit, stated_blocks
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.encodings.grids import Block
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_SMALLEST, _LARGEST = 1, 8


@dataclass(frozen=True)
class PackedIntegers(CodedTensor):
    """A matrix or a stack of packed integers. `zeros` and `order` are among the `parts` where they are stored.

    `dense` tells whether codes run on from word to word; None where the packed width does not say, but the bits of the
    words do that no whole code reaches.
    """

    grid: Grid
    bits: int
    dense: bool | None
    zeros: TensorEntry | None
    order: TensorEntry | None

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows and of their scales, then what all rows share."""
        of_codes = () if self.dense is None else (self._code_span(index, start, stop),)
        return (*of_codes, self.grid.span(index, start, stop), *self.shared_spans(index))

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Zero points, which are packed across rows, and the order of the columns."""
        spans = []
        if self.dense is None:
            spans.append(self._code_span(index, 0, self.rows))
        if self.zeros is not None:
            spans.append(self._zero_span(index))
        if self.order is not None:
            spans.append(self.order.span)
        return tuple(spans)

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes, two a byte where that is how they lie, with zero points and scales."""
        words, dense = self._words(source, index, start, stop)
        columns = None if self.order is None else self._groups(source)
        steps = [] if self.zeros is None else [self._zero_tiles(source, index, start, stop, columns, dense=dense)]
        scales = self.grid.tiles(self.grid.numbers(source, index, start, stop), start)
        steps.append(scales if columns is None else Tiles(scales.factors, None, 1, 1, columns=columns))
        half = 1 << (self.bits - 1)
        if self.bits == 4 and words.shape[1] * 8 == self.columns:
            table = pairs_of(tuple(float(code - half) for code in range(16)))
            return Packed(words.view(np.uint8), table, tuple(steps))
        codes = bit_fields(words, self.bits, self.columns, dense=dense)
        return Packed(codes, integers(half), tuple(steps))

    def _code_span(self, index: int | None, start: int, stop: int) -> ByteRange:
        return row_span(self.parts[0], self.parts[0].shape[-1] * 4, self.rows, index, start, stop)

    def _zero_span(self, index: int | None) -> ByteRange:
        assert self.zeros is not None  # noqa: S101 - the caller asked
        height = self.zeros.shape[-2]
        row_bytes = self.zeros.shape[-1] * INTEGERS[self.zeros.dtype].itemsize
        return row_span(self.zeros, row_bytes, height, index, 0, height)

    def _words(self, source: Source, index: int | None, start: int, stop: int) -> tuple[NDArray[np.uint32], bool]:
        """The words of the rows, and whether codes run on from one into the next."""
        if self.dense is not None:
            words = source.read(self._code_span(index, start, stop)).view(np.uint32)
            return words.reshape(stop - start, -1), self.dense
        words = source.read(self._code_span(index, 0, self.rows)).view(np.uint32).reshape(self.rows, -1)
        beyond = np.uint32(0xFFFFFFFF << (32 // self.bits * self.bits) & 0xFFFFFFFF)
        return words[start:stop], bool((words & beyond).any())

    def _groups(self, source: Source) -> NDArray[np.int64] | None:
        """The group of every column; None where the stored order says nothing."""
        assert self.order is not None  # noqa: S101 - the caller asked
        groups: NDArray[np.int64] = source.read(self.order.span).view(INTEGERS[self.order.dtype]).astype(np.int64)
        if (groups < 0).all():
            return None
        if groups.min() < 0 or groups.max() >= self.grid.counts[1]:
            raise broken(self.order, f"columns in groups that are none of the {self.grid.counts[1]}")
        return groups

    def _zero_tiles(
        self,
        source: Source,
        index: int | None,
        start: int,
        stop: int,
        columns: NDArray[np.int64] | None,
        *,
        dense: bool,
    ) -> Tiles:
        """What is added to a code less half its range: half its range less the zero point's code."""
        assert self.zeros is not None  # noqa: S101 - the caller asked
        stored = source.read(self._zero_span(index)).view(INTEGERS[self.zeros.dtype])
        stored = stored.reshape(-1, self.grid.counts[1])
        if self.zeros.dtype == "I32" and self.zeros.shape[-2] != self.grid.counts[0]:
            # One word holds the codes of several rows: rows along the last axis, as the words have them.
            across = np.ascontiguousarray(stored.view(np.uint32).T)
            codes = bit_fields(across, self.bits, self.rows, dense=dense)[:, start:stop].T
            zeros = codes.astype(np.float32) - np.float32(1 << (self.bits - 1))
        else:
            first, last = start // self.grid.tile[0], -(-stop // self.grid.tile[0])
            zeros = stored[first:last].astype(np.float32)
        tiles = self.grid.tiles(-zeros, start, "add")
        return tiles if columns is None else Tiles(tiles.factors, None, 1, 1, columns=columns, operation="add")


class CompressedIntegers(Encoding):
    """Finds `X.weight_packed` of 32-bit words."""

    name = "compressed-tensors INT"
    reads = "packed integers of 2 to 8 bits, zero points, act order"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every packed weight with all that belongs to it.

        Raises:
            CheckpointError: scales, shapes or zero points that are missing or contradict one another.
        """
        found: list[StoredTensor] = []
        widths, blocks = _stated_bits(catalogue), stated_blocks(catalogue.config)
        for packed in [entry for entry in free.values() if entry.name.endswith("weight_packed")]:
            if packed.dtype != "I32" or len(packed.shape) not in (2, 3) or 0 in packed.shape:
                continue
            stored = _read(packed, catalogue, free, widths, blocks)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _read(
    packed: TensorEntry,
    catalogue: Catalogue,
    free: dict[str, TensorEntry],
    widths: list[int],
    blocks: list[Block],
) -> PackedIntegers:
    weight = packed.name.removesuffix("_packed")
    scale = free.get(f"{weight}_scale")
    if scale is None:
        raise broken(packed, f"packed integers without their scales ({weight.rpartition('.')[2]}_scale)")
    shape = _shape(packed, catalogue.small_values.get(f"{weight}_shape"), free.get(f"{weight}_shape"), widths)
    bits, dense = _packing(packed, shape[-1], widths)
    order = free.get(f"{weight}_g_idx")
    if order is not None and (order.shape != (shape[-1],) or order.dtype not in ("I32", "I64") or len(shape) > 2):
        raise misfit(packed, order)
    grid = fit_grid(shape, scale, stated=blocks)
    if grid is None or (order is not None and grid.tile[0] != 1):
        raise misfit(packed, scale)
    zeros = free.get(f"{weight}_zero_point")
    if zeros is not None and not _fit_zeros(zeros, grid, shape, bits, dense):
        raise misfit(packed, zeros)
    further = (zeros, order, free.get(f"{weight}_shape"))
    parts = (packed, scale, *(part for part in further if part is not None))
    encoding = f"INT{bits} {grid.described(*shape[-2:])} (compressed-tensors)"
    return PackedIntegers(
        packed.name, weight.removesuffix(".weight"), encoding, shape, parts, grid, bits, dense, zeros, order
    )


def _shape(packed: TensorEntry, value: bytes | None, stored: TensorEntry | None, widths: list[int]) -> tuple[int, ...]:
    """The decoded shape: stored beside the words, or from the only width that the configuration has."""
    if value is not None and stored is not None and stored.dtype in ("I64", "I32"):
        sizes = tuple(int(size) for size in np.frombuffer(value, dtype=INTEGERS[stored.dtype]))
        shape = sizes if len(sizes) == len(packed.shape) else (*packed.shape[:-2], *sizes)
        if shape[:-1] == packed.shape[:-1] and 0 < shape[-1] <= packed.shape[-1] * 32:
            return shape
        raise broken(stored, f"says {list(sizes)} for words of {list(packed.shape)}")
    if len(set(widths)) == 1:
        return (*packed.shape[:-1], packed.shape[-1] * 32 // widths[0])
    raise broken(packed, "packed integers without their shape (weight_shape)")


def _packing(packed: TensorEntry, columns: int, widths: list[int]) -> tuple[int, bool | None]:
    """Bits a code, and whether codes run on from word to word: what gives the packed width, stated widths first."""
    words = packed.shape[-1]
    for bits in (*widths, *range(_SMALLEST, _LARGEST + 1)):
        dense, whole = words == -(-columns * bits // 32), words == -(-columns // (32 // bits))
        if dense or whole:
            return bits, None if dense and whole and 32 % bits else dense
    raise broken(packed, f"{words} words a row hold no {columns} codes of 1 to 8 bits")


def _fit_zeros(zeros: TensorEntry, grid: Grid, shape: tuple[int, ...], bits: int, dense: bool | None) -> bool:
    stack = shape[:-2]
    if zeros.shape == (*stack, *grid.counts) and zeros.dtype in ("I8", "I32"):
        return zeros.dtype == "I8" or bits == 32
    rows = shape[-2]
    possible = {True: [-(-rows * bits // 32)], False: [-(-rows // (32 // bits))]}
    words = possible[dense] if dense is not None else possible[True] + possible[False]
    packed = len(zeros.shape) == len(shape) and zeros.shape[:-2] == stack and zeros.shape[-1] == grid.counts[1]
    return packed and zeros.dtype == "I32" and grid.counts[0] == rows and zeros.shape[-2] in words


def _stated_bits(catalogue: Catalogue) -> list[int]:
    """Widths of packed integers that the configuration speaks of."""
    groups = section(catalogue.config, "quantization_config").get("config_groups")
    found = []
    for group in groups.values() if isinstance(groups, dict) else []:
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
        if type(bits) is int and _SMALLEST <= bits <= _LARGEST:
            found.append(bits)
    return found
