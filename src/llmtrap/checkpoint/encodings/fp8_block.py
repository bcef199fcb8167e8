"""FP8 weights with scales beside them: one a tensor, one a row, or one a block of rows and columns (DeepSeek, MXFP8).

A weight is its FP8 number times its scale: `weight_scale_inv` multiplies too, despite its name. The scales lie on a
grid over the last two dimensions; where a dimension is no multiple of the block, the last block is cut short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor
from llmtrap.checkpoint.encodings.grids import Grid, broken, fit_grid, misfit, stated_blocks
from llmtrap.checkpoint.encodings.plain import pack
from llmtrap.checkpoint.encodings.siblings import Modules, scale_of, unknown_scale

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry
    from llmtrap.packed import Packed

_WEIGHTS = ("F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Fp8Tensor(CodedTensor):
    """A matrix or a stack of FP8 numbers of one `kind`, with the grid of its scales."""

    grid: Grid
    kind: str

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, then those of the scales that cover them."""
        of_weight = row_span(self.parts[0], self.columns, self.rows, index, start, stop)
        return (of_weight, self.grid.span(index, start, stop))

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The FP8 codes, and the scales, which are few, as numbers."""
        of_weight, _ = self.spans(index, start, stop)
        scales = self.grid.tiles(self.grid.numbers(source, index, start, stop), start)
        return pack(source.read(of_weight), self.kind, stop - start, (scales,))


class Fp8Block(Encoding):
    """Finds FP8 weights that have a tensor of scales."""

    name = "FP8"
    reads = "E4M3 and E5M2 with scales a tensor, row, column or block (DeepSeek, FBGEMM, ModelOpt, MXFP8)"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every FP8 tensor whose scales are there; those without are numbers as they stand.

        Raises:
            CheckpointError: the scales' dtype or shape does not fit the weight, or scales that must be there are not.
            UnsupportedError: a tensor beside the weight must be its scale and has no name that is known.
        """
        found: list[StoredTensor] = []
        unscaled: list[TensorEntry] = []
        stated = stated_blocks(catalogue.config)
        weights = [entry for entry in free.values() if entry.dtype in _WEIGHTS]
        modules = Modules(free.values()) if weights else Modules(())
        for weight in weights:
            if weight.name not in free or len(weight.shape) < 2 or 0 in weight.shape:
                continue  # taken as the scales of another, or no matrix
            scale = scale_of(weight, free)
            if scale is None:
                if (unknown := modules.like_scales(weight, weight.shape)) is not None:
                    raise unknown_scale(weight, unknown)
                _check_none_expected(weight, catalogue.config)
                unscaled.append(weight)
                continue
            grid = fit_grid(weight.shape, scale, stated=stated)
            if grid is None:
                raise misfit(weight, scale)
            del free[weight.name], free[scale.name]
            module = weight.name.removesuffix(".weight")
            described = grid.described(*weight.shape[-2:])
            parts = (weight, scale)
            encoding = f"{weight.dtype} {described}"
            found.append(Fp8Tensor(weight.name, module, encoding, weight.shape, parts, grid, weight.dtype))
        _check_others_have_none(unscaled, found)
        return found


def _check_none_expected(weight: TensorEntry, config: dict[str, Any]) -> None:
    """Numbers without their block scales would be read as a matrix that nobody trained."""
    if section(config, "quantization_config").get("weight_block_size"):
        raise broken(weight, "config.json says that FP8 weights have block scales, and this one has none beside it")


def _check_others_have_none(unscaled: Iterable[TensorEntry], scaled: Iterable[StoredTensor]) -> None:
    """A weight without scales, where those of the same place in other layers or experts have them, has lost its own."""
    places = {_place(stored.name) for stored in scaled}
    for weight in unscaled:
        if _place(weight.name) in places:
            raise broken(weight, "FP8 weights of the same place in other layers have scales, and this one has none")


def _place(name: str) -> str:
    return re.sub(r"\d+", "0", name)
