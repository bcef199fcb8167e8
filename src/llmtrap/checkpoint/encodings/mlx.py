"""MLX: `X.weight` of 32-bit words along the rows, `X.scales` and, for integers, `X.biases`: q · scale + bias.

Codes are unsigned and run on from word to word. The modes without biases are MXFP4 (E2M1, a power of two every 32
columns), NVFP4 (E2M1, an E4M3 scale every 16) and MXFP8 (E4M3, a power of two every 32), all with scales in bytes.
Bits and group size are in config.json under `quantization`, once for all modules and again for those that differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor, coded_words
from llmtrap.checkpoint.encodings.fp4 import Fp4Tensor
from llmtrap.checkpoint.encodings.fp8_block import Fp8Tensor
from llmtrap.checkpoint.encodings.grids import SCALES, Grid, broken, fit_grid, misfit
from llmtrap.packed import Packed

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_BITS = (2, 3, 4, 5, 6, 8)
_FLOATS = {"mxfp4": ("U8", 4, 32), "nvfp4": ("F8_E4M3", 4, 16), "mxfp8": ("U8", 8, 32)}
_UINTS = ("U32", "I32")


@dataclass(frozen=True)
class AffineTensor(CodedTensor):
    """A matrix or a stack of unsigned integers, with the grids of scales and biases."""

    bits: int
    scales: Grid
    biases: Grid

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows, of their scales and of their biases."""
        of_words = row_span(self.parts[0], self.parts[0].shape[-1] * 4, self.rows, index, start, stop)
        return (of_words, *(grid.span(index, start, stop) for grid in (self.scales, self.biases)))

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes, two a byte where that is how they lie."""
        words = source.read(self.spans(index, start, stop)[0]).view(np.uint32).reshape(stop - start, -1)
        steps = (
            self.scales.tiles(self.scales.numbers(source, index, start, stop), start),
            self.biases.tiles(self.biases.numbers(source, index, start, stop), start, "add"),
        )
        return Packed(*coded_words(words, self.bits, self.columns), steps)


class Mlx(Encoding):
    """Finds `X.weight` of words with `X.scales` beside it."""

    name = "MLX"
    reads = "INT2 to INT8, MXFP4, NVFP4, MXFP8"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight with its scales and biases.

        Raises:
            CheckpointError: shapes that fit neither one another nor the bits and group size of the configuration.
        """
        found: list[StoredTensor] = []
        settings = section(catalogue.config, "quantization_config")
        for weight in [entry for entry in free.values() if entry.dtype in _UINTS and entry.name.endswith(".weight")]:
            module = weight.name.removesuffix(".weight")
            scales = free.get(f"{module}.scales")
            if scales is None or len(weight.shape) not in (2, 3) or 0 in weight.shape:
                continue
            biases = free.get(f"{module}.biases") or free.get(f"{module}.qbiases")
            own = settings.get(module)
            stored = _read(module, weight, scales, biases, {**settings, **(own if isinstance(own, dict) else {})})
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _read(
    module: str, weight: TensorEntry, scales: TensorEntry, biases: TensorEntry | None, settings: dict[str, Any]
) -> StoredTensor:
    width = weight.shape[-1] * 32
    if biases is None:
        return _of_floats(module, weight, scales, width, settings.get("mode"))
    bits, group = settings.get("bits"), settings.get("group_size")
    if bits not in _BITS or type(group) is not int or group < 1:
        raise broken(weight, "config.json does not say how many bits and columns a group MLX's weights have")
    if width % bits or scales.shape[-1] * group != width // bits:
        problem = (
            f"words of {list(weight.shape)} with scales of {list(scales.shape)}: no {bits} bits in groups of {group}"
        )
        raise broken(weight, problem)
    shape = (*weight.shape[:-1], width // bits)
    of_scales, of_biases = (fit_grid(shape, entry, stated=[(1, group)]) for entry in (scales, biases))
    counts = (shape[-2], scales.shape[-1])
    if of_scales is None or of_biases is None or of_scales.counts != counts or of_biases.counts != counts:
        raise misfit(weight, scales)
    encoding = f"INT{bits} groups of {group} (MLX)"
    return AffineTensor(weight.name, module, encoding, shape, (weight, scales, biases), bits, of_scales, of_biases)


def _of_floats(module: str, weight: TensorEntry, scales: TensorEntry, width: int, mode: object) -> StoredTensor:
    if not isinstance(mode, str) or mode not in _FLOATS or scales.dtype != "U8":
        raise broken(weight, "words with scales and no biases, and config.json names no mode of MLX that has none")
    stored, bits, group = _FLOATS[mode]
    shape = (*weight.shape[:-1], width // bits)
    grid = fit_grid(shape, scales, stated=[(1, group)], dtypes={"U8": SCALES[stored]})
    if grid is None or grid.counts != (shape[-2], -(-shape[-1] // group)):
        raise misfit(weight, scales)
    encoding = f"{mode.upper()} (MLX)"
    if bits == 4:
        return Fp4Tensor(weight.name, module, encoding, shape, (weight, scales), grid)
    return Fp8Tensor(weight.name, module, encoding, shape, (weight, scales), grid, "F8_E4M3")
