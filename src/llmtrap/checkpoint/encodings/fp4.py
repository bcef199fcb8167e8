"""4-bit floats (E2M1) two a byte along the rows, with a scale every 16 columns (NVFP4) or 32 (MXFP4).

The layouts: compressed-tensors `X.weight_packed` with `X.weight_scale` and, in NVFP4, `X.weight_global_scale`, by which
the scales are *divided*; ModelOpt `X.weight` (U8) with `X.weight_scale` and `X.weight_scale_2`, by which they are
*multiplied*; DeepSeek `X.weight` (I8 or F4) with powers of two in `X.scale`. The low nibble is the even column in all.
GPT-OSS stores MXFP4 otherwise: `mxfp4.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor
from llmtrap.checkpoint.encodings.grids import Grid, broken, fit_grid, misfit
from llmtrap.checkpoint.encodings.mxfp4 import PAIRS
from llmtrap.checkpoint.encodings.siblings import scale_of
from llmtrap.packed import Packed

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_POWERS = ("F8_E8M0", "U8")


@dataclass(frozen=True)
class Fp4Tensor(CodedTensor):
    """A matrix or a stack in E2M1 with the grid of its scales, and perhaps one global scale over each matrix.

    `parts` are weight, scales and, where `whole` says what is done with it, the global scale.
    """

    grid: Grid
    whole: Literal["multiply", "divide"] | None = None

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, of their scales, and the global scale."""
        of_weight = row_span(self.parts[0], self.columns // 2, self.rows, index, start, stop)
        return (of_weight, self.grid.span(index, start, stop), *self.shared_spans(index))

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """The global scale."""
        del index
        return () if self.whole is None else (self.parts[2].span,)

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The packed bytes, each two numbers, and the scales joined with the global one."""
        scales = self.grid.numbers(source, index, start, stop)
        if self.whole is not None:
            numbers = source.read(self.parts[2].span).view(np.float32)
            number = numbers[index if index is not None and numbers.size > 1 else 0]
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                scales = scales * number if self.whole == "multiply" else scales / number
        data = source.read(self.spans(index, start, stop)[0]).reshape(stop - start, -1)
        return Packed(data, PAIRS, (self.grid.tiles(scales, start),))


class Fp4(Encoding):
    """Finds bytes of two 4-bit floats by what lies beside them."""

    name = "FP4"
    reads = "NVFP4 and MXFP4 of compressed-tensors, ModelOpt and DeepSeek-V4"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every packed weight whose scales say that it is one.

        Raises:
            CheckpointError: scales or global scales that are missing or do not fit.
        """
        del catalogue
        found: list[StoredTensor] = []
        for weight in [entry for entry in free.values() if entry.dtype in ("U8", "I8", "F4")]:
            if weight.name not in free or len(weight.shape) < 2 or 0 in weight.shape:
                continue
            stored = _compressed(weight, free) if weight.name.endswith("_packed") else _beside(weight, free)
            if stored is not None:
                for part in stored.parts:
                    del free[part.name]
                found.append(stored)
        return found


def _compressed(packed: TensorEntry, free: dict[str, TensorEntry]) -> Fp4Tensor | None:
    """`X.weight_packed` of compressed-tensors: bytes are 4-bit floats, integers come in 32-bit words."""
    weight = packed.name.removesuffix("_packed")
    scale = free.get(f"{weight}_scale")
    if packed.dtype != "U8":
        return None
    if scale is None:
        raise broken(packed, f"4-bit floats without their scales ({weight.rpartition('.')[2]}_scale)")
    module = weight.removesuffix(".weight")
    return _stored(module, packed, scale, free.get(f"{weight}_global_scale"), "divide")


def _beside(weight: TensorEntry, free: dict[str, TensorEntry]) -> Fp4Tensor | None:
    """A weight whose scales lie beside it: of 8 bits, and 8 or 16 bytes of weights for each."""
    scale = scale_of(weight, free)
    if scale is None or scale.dtype not in (*_POWERS, "F8_E4M3") or len(scale.shape) != len(weight.shape):
        return None
    whole = free.get(f"{scale.name}_2")
    if scale.dtype == "F8_E4M3" and whole is None:
        raise broken(weight, f"NVFP4 without its global scale ({scale.name.rpartition('.')[2]}_2)")
    columns = weight.shape[-1] * (1 if weight.dtype == "F4" else 2)
    if whole is None and -(-columns // 32) != scale.shape[-1]:
        return None  # 8-bit integers under powers of two
    return _stored(weight.name.removesuffix(".weight"), weight, scale, whole, "multiply")


def _stored(
    module: str,
    weight: TensorEntry,
    scale: TensorEntry,
    whole: TensorEntry | None,
    operation: Literal["multiply", "divide"],
) -> Fp4Tensor:
    columns = weight.shape[-1] * (1 if weight.dtype == "F4" else 2)
    shape = (*weight.shape[:-1], columns)
    group = 32 if scale.dtype in _POWERS else 16
    grid = fit_grid(shape, scale, stated=[(1, group)])
    if grid is None or grid.counts != (shape[-2], -(-columns // group)) or columns % 2:
        raise misfit(weight, scale)
    name = "MXFP4" if scale.dtype in _POWERS else "NVFP4"
    if whole is None:
        return Fp4Tensor(weight.name, module, name, shape, (weight, scale), grid)
    stack = shape[0] if len(shape) == 3 else 1
    if whole.dtype != "F32" or whole.size not in (1, stack):
        raise misfit(weight, whole)
    parts = (weight, scale, whole)
    return Fp4Tensor(weight.name, module, name, shape, parts, grid, operation)
