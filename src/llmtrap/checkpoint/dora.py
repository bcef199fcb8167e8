"""DoRA: W + ΔW with every output scaled to a length that was trained, the magnitude.

W' = m · (W + ΔW) / ‖W + ΔW‖, with the norm over the inputs of each output (arXiv 2402.09353, eq. 5): a row's where the
outputs are rows, a column's where they are columns (GPT-2's Conv1D, and each feature of an embedding).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.adapters import read_factor
from llmtrap.checkpoint.encodings.base import Floats, StoredTensor, row_pieces
from llmtrap.checkpoint.sources.base import ByteRange, Source
from llmtrap.checkpoint.tensors import TensorEntry


@dataclass(frozen=True)
class DoraTensor(StoredTensor):
    """An updated tensor, W + ΔW, with the magnitudes of its outputs. `parts` are the updated one's and the magnitudes'.

    `by_column`: the outputs are columns, so that their norms take a pass over the whole matrix first.
    """

    updated: StoredTensor
    magnitude: TensorEntry
    by_column: bool
    _norms: list[NDArray[np.float64]] = field(default_factory=list, compare=False, repr=False)

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """The base's."""
        return self.updated.dtype

    @property
    def stored_bits(self) -> float:
        """Those of the updated tensor."""
        return self.updated.stored_bits

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """What the updated rows take, and the magnitudes."""
        return (*self.updated.spans(index, start, stop), self.magnitude.span)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Those of the updated tensor."""
        return self.updated.shared_spans(index)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows of m · (W + ΔW) / ‖W + ΔW‖."""
        magnitude = read_factor(self.magnitude, source)[0]
        block = self.updated.decode(source, index, start, stop, out)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if self.by_column:
                block *= (magnitude / self._column_norms(source, index)).astype(block.dtype)
            else:
                lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
                block *= (magnitude[start:stop] / lengths).astype(block.dtype)[:, None]
        return block

    def _column_norms(self, source: Source, index: int | None) -> NDArray[np.float64]:
        """‖W + ΔW‖ of every column, worked out once."""
        if not self._norms:
            total = np.zeros(self.columns)
            for start, stop in row_pieces(self.rows, self.columns):
                block = self.updated.decode(source, index, start, stop)
                total += np.einsum("ij,ij->j", block, block, dtype=np.float64)
            self._norms.append(np.sqrt(total))
        return self._norms[0]
