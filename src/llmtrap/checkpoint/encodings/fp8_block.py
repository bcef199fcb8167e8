"""FP8 weights with scales beside them: one a tensor, one a row, or one a block of rows and columns (DeepSeek).

A weight is its FP8 number times its scale: `weight_scale_inv` multiplies too, despite its name. The scales lie on a
grid over the last two dimensions; where a dimension is no multiple of the block, the last block is cut short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, Floats, StoredTensor, row_span
from llmtrap.checkpoint.encodings.plain import DTYPES, pack, widen
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.errors import CheckpointError
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_WEIGHTS = ("F8_E4M3", "F8_E5M2")
_SUFFIXES = ("_scale_inv", "_scale")
_SCALES: dict[str, np.dtype[np.generic]] = {
    **{name: DTYPES[name] for name in ("F64", "F32", "F16", "BF16")},
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "U8": np.dtype(ml_dtypes.float8_e8m0fnu),  # the same exponents, from writers without that dtype
}
_AGAIN = "Fetch the checkpoint again, or convert it to BF16"


@dataclass(frozen=True)
class Fp8Tensor(StoredTensor):
    """A matrix or a stack in FP8 with its scales; `grid` counts the scales along rows and columns of one matrix.

    `block` is the (rows, columns) that one scale covers.
    """

    grid: tuple[int, int]
    block: tuple[int, int]

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, then those of the scales that cover them."""
        weight, scale = self.parts
        first, last = start // self.block[0], -(-stop // self.block[0])
        itemsize = _SCALES[scale.dtype].itemsize
        shared = index if scale.size > self.grid[0] * self.grid[1] else None  # one grid for a whole stack
        return (
            row_span(weight, self.columns, self.rows, index, start, stop),
            row_span(scale, self.grid[1] * itemsize, self.grid[0], shared, first, last),
        )

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Widen the numbers and multiply them by their blocks' scales, in float32."""
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=np.float32)
        of_weight, of_scale = self.spans(index, start, stop)
        with source.open(of_weight) as data:
            widen(data, self.parts[0].dtype, out)
        scales = self._scales(source, of_scale)
        height, width = self.block
        first = start // height
        for k, of_columns in enumerate(scales):
            rows = slice(max(start, (first + k) * height) - start, min(stop, (first + k + 1) * height) - start)
            with np.errstate(over="ignore"):
                out[rows] *= of_columns if width == 1 else np.repeat(of_columns, width)[: self.columns]
        return out

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """The FP8 codes, and the scales, which are few, as numbers."""
        of_weight, of_scale = self.spans(index, start, stop)
        height, width = self.block
        tiles = Tiles(self._scales(source, of_scale), None, height, width, above=start % height)
        return pack(source.read(of_weight), self.parts[0].dtype, stop - start, (tiles,))

    def _scales(self, source: Source, span: ByteRange) -> NDArray[np.float32]:
        values: NDArray[np.float32] = source.read(span).view(_SCALES[self.parts[1].dtype]).astype(np.float32)
        return values.reshape(-1, self.grid[1])


class Fp8Block(Encoding):
    """Finds FP8 weights that have a tensor of scales."""

    name = "FP8"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every FP8 tensor whose scales are there; those without are numbers as they stand.

        Raises:
            CheckpointError: the scales' dtype or shape does not fit the weight, or scales that must be there are not.
        """
        found: list[StoredTensor] = []
        for weight in [entry for entry in free.values() if entry.dtype in _WEIGHTS]:
            scale = next((free[weight.name + suffix] for suffix in _SUFFIXES if weight.name + suffix in free), None)
            if len(weight.shape) < 2 or 0 in weight.shape:
                continue
            if scale is None:
                _check_none_expected(weight, catalogue.config)
                continue
            grid, block = _blocks(weight, scale, catalogue.config)
            del free[weight.name], free[scale.name]
            module = weight.name.removesuffix(".weight")
            encoding = f"{weight.dtype} {_described(weight, grid, block)}"
            found.append(Fp8Tensor(weight.name, module, encoding, weight.shape, (weight, scale), grid, block))
        return found


def _check_none_expected(weight: TensorEntry, config: dict[str, Any]) -> None:
    """Numbers without their block scales would be read as a matrix that nobody trained."""
    if section(config, "quantization_config").get("weight_block_size"):
        problem = "config.json says that FP8 weights have block scales, and this one has none beside it"
        raise CheckpointError(problem, file=weight.span.file, tensor=printable(weight.name), remedy=_AGAIN)


def _blocks(weight: TensorEntry, scale: TensorEntry, config: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid of scales over one matrix, and the rows and columns that one scale covers."""
    if scale.dtype not in _SCALES:
        raise _misfit(weight, scale)
    stack, (rows, columns) = weight.shape[:-2], weight.shape[-2:]
    shape = scale.shape
    if scale.size == 1:
        grid = (1, 1)
    elif shape == (rows,) and not stack:
        grid = (rows, 1)
    elif shape == stack:
        grid = (1, 1)
    elif len(shape) == len(weight.shape) and shape[:-2] == stack:
        grid = (shape[-2], shape[-1])
    else:
        raise _misfit(weight, scale)
    stated = section(config, "quantization_config").get("weight_block_size")
    pair = stated if isinstance(stated, list) and len(stated) == 2 else [None, None]
    height, width = _block_size(rows, grid[0], pair[0]), _block_size(columns, grid[1], pair[1])
    if height is None or width is None:
        raise _misfit(weight, scale)
    return grid, (height, width)


def _block_size(size: int, count: int, stated: object) -> int | None:
    """How many of `size` rows or columns one of `count` scales covers; None where no block size gives that count.

    Several sizes do where the last block is cut short. The configuration's is taken where it fits, then a power of two,
    then equal blocks: a file may mix block sizes, so the grid decides and not the configuration.
    """
    if count == 1:
        return size
    if type(stated) is int and stated > 0 and -(-size // stated) == count:
        return stated
    powers = [power for power in (1 << exponent for exponent in range(40)) if -(-size // power) == count]
    if powers:
        return powers[0]
    return size // count if count and size % count == 0 else None


def _described(weight: TensorEntry, grid: tuple[int, int], block: tuple[int, int]) -> str:
    if grid == (1, 1):
        return "scaled per tensor"
    if grid == (weight.shape[-2], 1):
        return "scaled per row"
    return f"blocks {block[0]}x{block[1]}"


def _misfit(weight: TensorEntry, scale: TensorEntry) -> CheckpointError:
    problem = (
        f"scales of {scale.dtype} {list(scale.shape)} do not fit the weight "
        f"{printable(weight.name)} of {weight.dtype} {list(weight.shape)}"
    )
    return CheckpointError(problem, file=scale.span.file, tensor=printable(scale.name), remedy=_AGAIN)
