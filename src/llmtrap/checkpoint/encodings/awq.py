"""AWQ (gemm): `X.qweight`, 32-bit words of eight 4-bit codes along the *outputs* of a transposed matrix.

`qweight` is [in, out / 8], `qzeros` [groups, out / 8], `scales` [groups, out]; nibble k of a word belongs to output
8c + (0, 2, 4, 6, 1, 3, 5, 7)[k], and a weight is scale · (q - z). What is stored is the matrix with its columns scaled
by the activations' sizes; the layer before holds the inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.coded import CodedTensor, Codes, integers
from llmtrap.checkpoint.encodings.grids import SCALES, as_numbers, misfit
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_OUTPUT_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)
_EACH = 8  # codes of a word
_REMEDY = "Save it with AutoAWQ or gptqmodel as version gemm, or audit the checkpoint before it was quantised"


@dataclass(frozen=True)
class AwqTensor(CodedTensor):
    """A matrix as AWQ's gemm packs it. `parts` are words, zero points and scales; `group` the columns of a group."""

    group: int

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """Everything: the matrix is stored transposed."""
        del start, stop
        return self.shared_spans(index)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Everything."""
        del index
        return tuple(part.span for part in self.parts)

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes of some outputs, put into rows, with zero points and scales for each group of columns."""
        del index
        words, zeros, scales = self.parts
        codes = _outputs(source, words, start, stop)
        points = -_outputs(source, zeros, start, stop).astype(np.float32)
        factors = as_numbers(source.read(scales.span), SCALES[scales.dtype]).reshape(scales.shape)[:, start:stop]
        steps = (
            Tiles(points, None, 1, self.group, operation="add"),
            Tiles(np.ascontiguousarray(factors.T), None, 1, self.group),
        )
        return Packed(codes, integers(), steps)


def _outputs(source: Source, entry: TensorEntry, start: int, stop: int) -> Codes:
    """The codes of outputs [start, stop), one row each."""
    first, last = start // _EACH, -(-stop // _EACH)
    words = source.read(entry.span).view(np.uint32).reshape(entry.shape)[:, first:last]
    # Words are put the right way round before they are taken apart: they are eight times as few.
    in_bytes = np.ascontiguousarray(words.T).view(np.uint8).reshape(last - first, entry.shape[0], 4)
    codes = np.empty((last - first, _EACH, entry.shape[0]), dtype=np.uint8)
    for nibble, output in enumerate(_OUTPUT_OF_NIBBLE):
        byte = in_bytes[:, :, nibble // 2]
        np.bitwise_and(byte, 15, out=codes[:, output]) if nibble % 2 == 0 else np.right_shift(
            byte, 4, out=codes[:, output]
        )
    return codes.reshape(-1, entry.shape[0])[start - first * _EACH : stop - first * _EACH]


class Awq(Encoding):
    """Finds `X.qweight` whose words run along the outputs."""

    name = "AWQ"
    reads = "INT4 (gemm), with zero points; other packings are refused by name"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every AWQ weight with what belongs to it.

        Raises:
            CheckpointError: scales or zero points that do not fit.
            UnsupportedError: another version of AWQ's packing.
        """
        found: list[StoredTensor] = []
        settings = section(catalogue.config, "quantization_config")
        for words in [entry for entry in free.values() if entry.name.endswith(".qweight")]:
            module = words.name.removesuffix(".qweight")
            zeros, scales = (free.get(f"{module}.{name}") for name in ("qzeros", "scales"))
            if zeros is None or scales is None or not _is_gemm(words, zeros, scales):
                continue
            _check_version(settings)
            stored = _read(module, words, zeros, scales, settings)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _is_gemm(words: TensorEntry, zeros: TensorEntry, scales: TensorEntry) -> bool:
    flat = all(len(part.shape) == 2 and 0 not in part.shape for part in (words, zeros, scales))
    return (
        flat
        and words.dtype == zeros.dtype == "I32"
        and scales.dtype in ("F16", "BF16", "F32")
        and words.shape[1] * _EACH == scales.shape[1]
    )


def _check_version(settings: dict[str, Any]) -> None:
    version = settings.get("version")
    if isinstance(version, str) and version.lower() != "gemm":
        problem = f"AWQ packed as {printable(version)}: llmtrap reads gemm"
        raise UnsupportedError(problem, file="config.json", remedy=_REMEDY)
    if settings.get("quant_method") == "gptq":
        problem = "config.json says GPTQ, and the words run along the outputs as AWQ's do"
        raise UnsupportedError(problem, file="config.json", remedy=_REMEDY)


def _read(
    module: str, words: TensorEntry, zeros: TensorEntry, scales: TensorEntry, settings: dict[str, Any]
) -> AwqTensor:
    (groups, rows), columns = scales.shape, words.shape[0]
    if zeros.shape != (groups, words.shape[1]):
        raise misfit(words, zeros)
    stated = settings.get("group_size")
    sizes = [size for size in (stated, -(-columns // groups)) if type(size) is int and size > 0]
    group = next((size for size in sizes if -(-columns // size) == groups), None)
    if group is None:
        raise misfit(words, scales)
    encoding = f"AWQ INT4 groups of {group}"
    return AwqTensor(words.name, module, encoding, (rows, columns), (words, zeros, scales), group)
