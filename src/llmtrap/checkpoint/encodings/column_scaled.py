"""Matrices whose columns were scaled before they were rounded, where the file holds the scales: undone as it is read.

ModelOpt's AWQ and SmoothQuant variants multiply the inputs of `X` by `X.pre_quant_scale` [in], and so the matrix that
was trained is W · diag(pre_quant_scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import Floats, StoredTensor
from llmtrap.checkpoint.encodings.grids import SCALES, as_numbers, misfit
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source

UNDONE = "column scaling undone"
_NAME = "pre_quant_scale"
_STORED = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class ColumnScaled(StoredTensor):
    """Another tensor, every column of it multiplied by a number. The last of the `parts` holds these numbers."""

    scaled: StoredTensor

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """The other's."""
        return self.scaled.dtype

    @property
    def stored_bits(self) -> float:
        """The other's."""
        return self.scaled.stored_bits

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The other's, and the columns' numbers."""
        return (*self.scaled.spans(index, start, stop), self.parts[-1].span)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """The other's, and the columns' numbers."""
        return (*self.scaled.shared_spans(index), self.parts[-1].span)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows of the other, times the columns' numbers."""
        block = self.scaled.decode(source, index, start, stop, out)
        with np.errstate(over="ignore", invalid="ignore"):
            block *= self._numbers(source)
        return block

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """The other's codes, with one step more."""
        packed = self.scaled.packed(source, index, start, stop)
        if packed is None:
            return None
        columns = Tiles(self._numbers(source).reshape(1, -1), None, stop - start, 1)
        return replace(packed, tiles=(*packed.tiles, columns))

    def _numbers(self, source: Source) -> NDArray[np.float32]:
        entry = self.parts[-1]
        return as_numbers(source.read(entry.span), SCALES[entry.dtype])


def undo_column_scaling(taken: Sequence[StoredTensor]) -> list[StoredTensor]:
    """The same tensors, with those multiplied by the columns' scales whose module has any; the scales are then theirs.

    Raises:
        CheckpointError: the scales are not one a column.
    """
    scales = {stored.module: stored.parts[0] for stored in taken if stored.name.endswith(f".{_NAME}")}
    if not scales:
        return list(taken)
    found, used = [], set()
    for stored in taken:
        scale = scales.get(f"{stored.module}.{_NAME}")
        if scale is None or len(stored.shape) != 2:
            found.append(stored)
            continue
        if scale.size != stored.columns or scale.dtype not in _STORED:
            raise misfit(stored.parts[0], scale)
        used.add(scale.name)
        parts, encoding = (*stored.parts, scale), f"{stored.encoding}, {UNDONE}"
        found.append(ColumnScaled(stored.name, stored.module, encoding, stored.shape, parts, stored))
    return [stored for stored in found if stored.name not in used]
