"""bitsandbytes: 4-bit codes of a table (NF4, FP4) in blocks of the flattened matrix, and INT8 with a scale a row.

4 bits: `X.weight` holds two codes a byte, the *high* nibble first; `X.weight.quant_map` [16] says what they stand for,
`X.weight.absmax` scales each block, and `X.weight.quant_state.bitsandbytes__nf4` (or `__fp4`) is JSON with shape and
block size. Nested: absmax are codes of `nested_quant_map` [256], scaled by `nested_absmax`, plus an offset. 8 bits:
`X.weight` · `X.SCB` · (1 / 127).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor, integers, nibbles
from llmtrap.checkpoint.encodings.flat_blocks import covering, flat_tiles
from llmtrap.checkpoint.encodings.grids import Grid, broken, fit_grid, misfit
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_STATES = ("nf4", "fp4")
_MAX_BLOCK = 1 << 20


@dataclass(frozen=True)
class FourBitTensor(CodedTensor):
    """A matrix of 4-bit codes. `parts` are codes, absmax, the table, those of nested absmax, and the state."""

    block: int
    nested_block: int = 0
    nested_offset: float = 0.0

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the codes, of the blocks' scales, and what all rows share."""
        codes, absmax, *_ = self.parts
        first, last = self._flat(index, start, stop)
        of_codes = _bytes_of(codes, first // 2, -(-last // 2))
        blocks = covering(first, last, self.block)
        itemsize = 1 if self.nested_block else 4
        return (of_codes, _bytes_of(absmax, *(edge * itemsize for edge in blocks)), *self.shared_spans(index))

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """The table, and what the scales' own codes stand for."""
        del index
        return tuple(part.span for part in self.parts[2 : 5 if self.nested_block else 3])

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes, two a byte where rows begin with whole bytes, with the scales of the blocks."""
        of_codes, of_absmax, *_ = self.spans(index, start, stop)
        first, last = self._flat(index, start, stop)
        shape = (stop - start, self.columns)
        numbers = source.read(self.parts[2].span).view(np.float32)
        scales = self._scales(source, of_absmax, covering(first, last, self.block)[0])
        tiles = flat_tiles(scales, self.block, first, shape)
        data = source.read(of_codes)
        if self.columns % 2 == 0:
            pairs = np.stack([np.repeat(numbers, 16), np.tile(numbers, 16)], axis=1)
            return Packed(data.reshape(shape[0], -1), pairs, (tiles,))
        codes = nibbles(data, high_first=True)[first % 2 :][: last - first]
        table = np.zeros((256, 1), dtype=np.float32)
        table[:16, 0] = numbers
        return Packed(codes.reshape(shape), table, (tiles,))

    def _flat(self, index: int | None, start: int, stop: int) -> tuple[int, int]:
        """Where rows [start, stop) begin and end in the flattened tensor."""
        above = 0 if index is None else index * self.rows
        return (above + start) * self.columns, (above + stop) * self.columns

    def _scales(self, source: Source, span: ByteRange, first_block: int) -> NDArray[np.float32]:
        """Absmax of the blocks from `first_block` on."""
        data = source.read(span)
        if not self.nested_block:
            return data.view(np.float32)
        of_codes, nested = (source.read(part.span).view(np.float32) for part in self.parts[3:5])
        places = (np.arange(data.size) + first_block) // self.nested_block
        with np.errstate(over="ignore", invalid="ignore"):
            scales: NDArray[np.float32] = of_codes[data] * nested[places] + np.float32(self.nested_offset)
        return scales


@dataclass(frozen=True)
class RowScaledBytes(CodedTensor):
    """LLM.int8(): a matrix of signed bytes, with the largest entry of every row."""

    grid: Grid

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, and of their scales."""
        of_weight = row_span(self.parts[0], self.columns, self.rows, index, start, stop)
        return (of_weight, self.grid.span(index, start, stop))

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes as they lie, times the row's largest entry, times 1 / 127: rounded twice, as the library does."""
        codes = source.read(self.spans(index, start, stop)[0]).reshape(stop - start, -1)
        scales = self.grid.tiles(self.grid.numbers(source, index, start, stop), start)
        whole = Tiles(np.full((1, 1), 1 / 127, dtype=np.float32), None, stop - start, self.columns)
        return Packed(codes, integers(signed=True), (scales, whole))


class BitsAndBytes(Encoding):
    """Finds 4-bit weights by their state, and 8-bit ones by their SCB."""

    name = "bitsandbytes"
    reads = "NF4, FP4 and INT8; nested scales; blocks across the ends of rows"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight with what belongs to it.

        Raises:
            CheckpointError: parts that are missing or contradict the state.
        """
        found: list[StoredTensor] = []
        for name in [name for name in free if ".quant_state.bitsandbytes__" in name]:
            stored = _four_bits(name, catalogue, free)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        for scale in [entry for entry in free.values() if entry.name.endswith(".SCB")]:
            module = scale.name.removesuffix(".SCB")
            weight = free.get(f"{module}.weight")
            if weight is None or weight.dtype != "I8" or len(weight.shape) != 2 or scale.dtype != "F32":
                continue
            grid = fit_grid(weight.shape, scale)
            if grid is None or grid.tile[0] != 1:
                raise misfit(weight, scale)
            encoding = "INT8 scaled per row (bitsandbytes)"
            form = free.get(f"{module}.weight_format")
            parts = (weight, scale) if form is None else (weight, scale, form)
            found.append(RowScaledBytes(weight.name, module, encoding, weight.shape, parts, grid))
            for part in parts:
                del free[part.name]
        return found


def _four_bits(state_name: str, catalogue: Catalogue, free: dict[str, TensorEntry]) -> FourBitTensor:
    weight_name, _, kind = state_name.partition(".quant_state.bitsandbytes__")
    state = _state(free[state_name], catalogue.small_values.get(state_name), kind)
    parts = {name: free.get(f"{weight_name}.{name}") for name in ("absmax", "quant_map")}
    codes, absmax, table = free.get(weight_name), parts["absmax"], parts["quant_map"]
    if codes is None or absmax is None or table is None:
        raise broken(free[state_name], "the state of a 4-bit weight without its codes, absmax or quant_map")
    shape, block = state["shape"], state["blocksize"]
    size = math.prod(shape)
    if codes.span.size != -(-size // 2) or table.dtype != "F32" or table.shape != (16,):
        raise misfit(codes, table)
    blocks = -(-size // block)
    nested = "nested_blocksize" in state
    if absmax.size != blocks or absmax.dtype != ("U8" if nested else "F32"):
        raise misfit(codes, absmax)
    module = weight_name.removesuffix(".weight")
    encoding = f"{kind.upper()} blocks of {block}{', nested scales' if nested else ''}"
    if not nested:
        return FourBitTensor(codes.name, module, encoding, shape, (codes, absmax, table, free[state_name]), block)
    of_codes, of_blocks = (free.get(f"{weight_name}.{name}") for name in ("nested_quant_map", "nested_absmax"))
    if of_codes is None or of_blocks is None:
        raise broken(absmax, "nested scales without nested_quant_map or nested_absmax")
    nested_block = state["nested_blocksize"]
    if of_codes.dtype != "F32" or of_codes.shape != (256,):
        raise misfit(codes, of_codes)
    if of_blocks.dtype != "F32" or of_blocks.size != -(-blocks // nested_block):
        raise misfit(codes, of_blocks)
    whole = (codes, absmax, table, of_codes, of_blocks, free[state_name])
    return FourBitTensor(codes.name, module, encoding, shape, whole, block, nested_block, state["nested_offset"])


def _state(entry: TensorEntry, value: bytes | None, kind: str) -> dict[str, Any]:
    """The state, once every number in it is known to be one."""
    try:
        state = json.loads(value or b"")
    except (ValueError, RecursionError):
        state = None
    if kind not in _STATES or not isinstance(state, dict):
        raise broken(entry, "the state of a 4-bit weight is not JSON of a kind that llmtrap knows (nf4, fp4)")
    shape, found = state.get("shape"), {"blocksize": state.get("blocksize")}
    if "nested_blocksize" in state:
        found["nested_blocksize"] = state["nested_blocksize"]
        offset = state.get("nested_offset")
        if not isinstance(offset, float | int) or isinstance(offset, bool) or not math.isfinite(offset):
            raise broken(entry, "the offset of nested scales is not a number")
    whole = isinstance(shape, list) and len(shape) in (2, 3) and all(type(n) is int and 0 < n < 1 << 32 for n in shape)
    if not whole or not all(type(size) is int and 0 < size <= _MAX_BLOCK for size in found.values()):
        raise broken(entry, "the state of a 4-bit weight has no shape and block size of whole numbers")
    assert isinstance(shape, list)  # noqa: S101 - checked just above
    return {**found, "shape": tuple(shape), "nested_offset": float(state.get("nested_offset", 0.0))}


def _bytes_of(entry: TensorEntry, first: int, last: int) -> ByteRange:
    """Bytes [first, last) of a tensor."""
    return ByteRange(entry.span.file, entry.span.start + first, entry.span.start + last)
