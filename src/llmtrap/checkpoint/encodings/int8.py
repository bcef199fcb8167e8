"""Integers of 8 bits with scales beside them: (q - zero point) · scale, one scale a tensor, a row or a group.

compressed-tensors (`X.weight`, `X.weight_scale`, `X.weight_zero_point`) and whoever stores codes as they are under the
names that FP8 scales go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor, integers
from llmtrap.checkpoint.encodings.grids import INTEGERS, SCALES, Grid, fit_grid, misfit, stated_blocks
from llmtrap.checkpoint.encodings.siblings import scale_of
from llmtrap.packed import Packed

if TYPE_CHECKING:
    from llmtrap.checkpoint.encodings.grids import Block
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_SCALES = {name: stored for name, stored in SCALES.items() if name in ("F64", "F32", "F16", "BF16")}
_ZEROS = {**INTEGERS, **_SCALES}


@dataclass(frozen=True)
class ByteIntegers(CodedTensor):
    """A matrix or a stack of bytes with the grids of its scales and zero points."""

    scales: Grid
    zeros: Grid | None

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, of their scales, and of their zero points."""
        of_weight = row_span(self.parts[0], self.columns, self.rows, index, start, stop)
        grids = (self.scales,) if self.zeros is None else (self.scales, self.zeros)
        return (of_weight, *(grid.span(index, start, stop) for grid in grids))

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes as they lie."""
        codes = source.read(self.spans(index, start, stop)[0]).reshape(stop - start, -1)
        steps = [self.scales.tiles(self.scales.numbers(source, index, start, stop), start)]
        if self.zeros is not None:
            steps.insert(0, self.zeros.tiles(-self.zeros.numbers(source, index, start, stop), start, "add"))
        return Packed(codes, integers(signed=self.parts[0].dtype == "I8"), tuple(steps))


class Int8(Encoding):
    """Finds integers of 8 bits by the scales beside them."""

    name = "INT8"
    reads = "signed and unsigned bytes with scales and zero points"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight of bytes with a tensor of floating-point scales.

        Raises:
            CheckpointError: scales or zero points that do not fit.
        """
        found: list[StoredTensor] = []
        blocks = stated_blocks(catalogue.config)
        for weight in [entry for entry in free.values() if entry.dtype in ("I8", "U8")]:
            if len(weight.shape) not in (2, 3) or 0 in weight.shape:
                continue
            scale = scale_of(weight, free)
            if scale is None or scale.dtype not in _SCALES:
                continue
            zeros = free.get(scale.name.replace("_scale", "_zero_point")) if "_scale" in scale.name else None
            stored = byte_integers(weight, scale, zeros, weight.name.removesuffix(".weight"), "", blocks)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def byte_integers(
    weight: TensorEntry,
    scale: TensorEntry,
    zeros: TensorEntry | None,
    module: str,
    source: str,
    blocks: list[Block],
) -> ByteIntegers:
    """A tensor of integers with its scales and zero points; `source` names who wrote it, in brackets, or is empty.

    Raises:
        CheckpointError: scales or zero points that do not fit.
    """
    shape = weight.shape
    scales = fit_grid(shape, scale, stated=blocks, dtypes=_SCALES)
    if scales is None:
        raise misfit(weight, scale)
    points = None
    if zeros is not None:
        points = fit_grid(shape, zeros, stated=[scales.tile], dtypes=_ZEROS)
        if points is None:
            raise misfit(weight, zeros)
    parts = (weight, scale) if zeros is None else (weight, scale, zeros)
    encoding = f"{'INT8' if weight.dtype == 'I8' else 'UINT8'} {scales.described(*shape[-2:])}{source}"
    return ByteIntegers(weight.name, module, encoding, shape, parts, scales, points)
