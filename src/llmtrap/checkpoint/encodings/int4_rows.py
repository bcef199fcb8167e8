"""ModelOpt's INT4 (INT4_AWQ): bytes of two signed 4-bit codes, one of an even row and one of the row below it.

`X.weight` is [out / 2, in] with the even row in the low nibble, and `X.weight_scale` [out, groups of columns].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor, signed_nibbles
from llmtrap.checkpoint.encodings.grids import Grid, broken, fit_grid, stated_blocks
from llmtrap.packed import Packed

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_SCALES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class RowPairs(CodedTensor):
    """A matrix or a stack whose rows lie two in one."""

    grid: Grid

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the pairs that hold the rows, and the rows' scales."""
        pairs = row_span(self.parts[0], self.columns, self.rows // 2, index, start // 2, -(-stop // 2))
        return (pairs, self.grid.span(index, start, stop))

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes, one a byte, in rows of their own."""
        data = source.read(self.spans(index, start, stop)[0]).reshape(-1, self.columns)
        codes = np.stack([data & np.uint8(15), data >> np.uint8(4)], axis=1).reshape(-1, self.columns)
        mine = codes[start % 2 :][: stop - start]
        return Packed(
            np.ascontiguousarray(mine),
            signed_nibbles(),
            (self.grid.tiles(self.grid.numbers(source, index, start, stop), start),),
        )


class Int4Rows(Encoding):
    """Finds bytes with twice as many rows of scales."""

    name = "INT4 in pairs of rows"
    reads = "INT4_AWQ of ModelOpt"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight of bytes whose scales have twice its rows.

        Raises:
            CheckpointError: a second scale, which W4A8_AWQ has, and whose meaning is not known.
        """
        found: list[StoredTensor] = []
        blocks = stated_blocks(catalogue.config)
        for weight in [entry for entry in free.values() if entry.dtype == "U8" and entry.name.endswith("weight")]:
            scale = free.get(f"{weight.name}_scale")
            if scale is None or scale.dtype not in _SCALES or len(weight.shape) not in (2, 3) or 0 in weight.shape:
                continue
            shape = (*weight.shape[:-2], weight.shape[-2] * 2, weight.shape[-1])
            grid = fit_grid(shape, scale, stated=blocks)
            if grid is None or grid.counts[0] != shape[-2] or len(scale.shape) != len(shape):
                continue
            if f"{weight.name}_scale_2" in free:
                raise broken(weight, "4-bit integers with a second scale (W4A8_AWQ), which llmtrap does not read")
            del free[weight.name], free[scale.name]
            encoding = f"INT4 {grid.described(*shape[-2:])} (ModelOpt)"
            module = weight.name.removesuffix(".weight")
            found.append(RowPairs(weight.name, module, encoding, shape, (weight, scale), grid))
        return found
