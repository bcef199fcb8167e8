"""GPTQ: `X.qweight`, 32-bit words of codes along the *inputs* of a transposed matrix, with zero points and scales.

`qweight` is [in · bits / 32, out], `qzeros` [groups, out · bits / 32], `scales` [groups, out], and `g_idx` [in] gives
the group of every input, in any order where the matrix was quantised in the order of its activations. A weight is
scale · (q - z). Checkpoints of version 1 store z - 1, subtracted from whole words, so it is added to whole words again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.coded import CodedTensor, bit_fields, coded_words
from llmtrap.checkpoint.encodings.grids import SCALES, as_numbers, broken, misfit
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_WIDTHS = (2, 3, 4, 8)
_ONE_IN_EACH = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}
_REMEDY = "Save it with gptqmodel as checkpoint_format gptq or gptq_v2, or audit the checkpoint before it was quantised"


@dataclass(frozen=True)
class GptqTensor(CodedTensor):
    """A matrix as GPTQ packs it. `parts` are words, zero points, scales and, where it is stored, the order.

    `offset` is what a stored zero point lacks; `group` is the columns of a group where no order is stored.
    """

    bits: int
    offset: int
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
        words, zeros, scales, *order = self.parts
        mine = source.read(words.span).view(np.uint32).reshape(words.shape)[:, start:stop]
        codes, table = coded_words(np.ascontiguousarray(mine.T), self.bits, self.columns)
        columns = self._groups(source, order[0]) if order else None
        group = 1 if columns is not None else self.group
        points = -self._zero_points(source, zeros)[:, start:stop].T.astype(np.float32)
        factors = as_numbers(source.read(scales.span), SCALES[scales.dtype]).reshape(scales.shape)[:, start:stop]
        steps = (
            Tiles(np.ascontiguousarray(points), None, 1, group, columns=columns, operation="add"),
            Tiles(np.ascontiguousarray(factors.T), None, 1, group, columns=columns),
        )
        return Packed(codes, table, steps)

    def _zero_points(self, source: Source, zeros: TensorEntry) -> NDArray[np.int32]:
        """[groups, outputs]."""
        words = source.read(zeros.span).view(np.uint32).reshape(zeros.shape)
        if self.offset and self.bits in _ONE_IN_EACH:
            words = words + np.uint32(_ONE_IN_EACH[self.bits])
        points = bit_fields(words, self.bits, self.rows).astype(np.int32)
        if self.offset and self.bits not in _ONE_IN_EACH:
            points = (points + 1) & ((1 << self.bits) - 1)
        return points

    def _groups(self, source: Source, order: TensorEntry) -> NDArray[np.int64] | None:
        """The group of every column; None where they follow one another in equal runs."""
        groups: NDArray[np.int64] = source.read(order.span).view("<i4").astype(np.int64)
        count = self.parts[2].shape[0]
        if groups.min() < 0 or groups.max() >= count:
            raise broken(order, f"columns in groups that are none of the {count}")
        in_order = np.arange(self.columns) // self.group
        return None if np.array_equal(groups, in_order) else groups


class Gptq(Encoding):
    """Finds `X.qweight` whose words run along the inputs."""

    name = "GPTQ"
    reads = "INT2, 3, 4 and 8, versions 1 and 2, act order"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every GPTQ weight with what belongs to it.

        Raises:
            CheckpointError: parts that are missing or contradict one another or the configuration.
            UnsupportedError: another packing of GPTQ.
        """
        found: list[StoredTensor] = []
        settings = section(catalogue.config, "quantization_config")
        for words in [entry for entry in free.values() if entry.name.endswith(".qweight")]:
            module = words.name.removesuffix(".qweight")
            zeros, scales, order = (free.get(f"{module}.{name}") for name in ("qzeros", "scales", "g_idx"))
            if zeros is None or scales is None or not _transposed(words, zeros, scales):
                continue
            stored = _read(module, words, zeros, scales, order, settings)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _transposed(words: TensorEntry, zeros: TensorEntry, scales: TensorEntry) -> bool:
    """Whether these are GPTQ's shapes: as many columns of words as there are outputs."""
    flat = all(len(part.shape) == 2 and 0 not in part.shape for part in (words, zeros, scales))
    return (
        flat
        and words.dtype == zeros.dtype == "I32"
        and scales.dtype in ("F16", "BF16", "F32")
        and words.shape[1] == scales.shape[1]
    )


def _read(
    module: str,
    words: TensorEntry,
    zeros: TensorEntry,
    scales: TensorEntry,
    order: TensorEntry | None,
    settings: dict[str, Any],
) -> GptqTensor:
    groups, rows = scales.shape
    bits = zeros.shape[1] * 32 // rows
    if bits not in _WIDTHS or zeros.shape != (groups, -(-rows * bits // 32)) or words.shape[0] * 32 % bits:
        raise misfit(words, zeros)
    columns = words.shape[0] * 32 // bits
    if order is not None and (order.shape != (columns,) or order.dtype != "I32"):
        raise misfit(words, order)
    stated = settings.get("group_size")
    sizes = [size for size in (stated, -(-columns // groups)) if type(size) is int and size > 0]
    group = next((size for size in sizes if -(-columns // size) == groups), None)
    if group is None and order is None:
        raise misfit(words, scales)
    version = _version(settings)
    parts = (words, zeros, scales) if order is None else (words, zeros, scales, order)
    encoding = f"GPTQ INT{bits} groups of {group or sizes[-1]} (v{version})"
    return GptqTensor(
        words.name, module, encoding, (rows, columns), parts, bits, 1 if version == 1 else 0, group or sizes[-1]
    )


def _version(settings: dict[str, Any]) -> int:
    """1 or 2: which zero points are stored."""
    packing = settings.get("packing_format")
    stated = settings.get("checkpoint_format") or (packing if settings.get("quant_method") == "auto-round" else None)
    if stated in (None, "gptq", "auto_round:auto_gptq"):
        return 1
    if stated == "gptq_v2":
        return 2
    problem = f"GPTQ packed as {printable(str(stated))}: llmtrap reads gptq and gptq_v2"
    raise UnsupportedError(problem, file="config.json", remedy=_REMEDY)
