"""Stored matrices as numbers: decoded to float32, an adapter's update put in, and changed on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmtrap.checkpoint import Checkpoint, Source
from llmtrap.checkpoint.encodings import StoredTensor
from llmtrap.checkpoint.encodings.base import row_pieces
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError

Floats = NDArray[np.float32]
Change = Callable[[Floats], Floats]
"""Takes a stored matrix, [rows, columns], and returns the changed one; it may change the array it was given."""

_OUTPUT_FIRST = ("_blocks", ".blocks")


@dataclass(frozen=True)
class Place:
    """One stored matrix: the name of its (main) stored tensor, and the slice of axis 0 where that is a stack."""

    tensor: str
    index: int | None = None


@dataclass(frozen=True)
class StoredValues:
    """The numbers of a checkpoint's tensors.

    Attributes:
        source: of the bytes.
        adapted: what an adapter makes of the base's matrices, by where they are stored.
    """

    source: Source
    adapted: Mapping[Place, StoredTensor]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> StoredValues:
        """The values of a checkpoint, which may be a base with an adapter on it.

        Raises:
            UnsupportedError: the adapter brings tensors that are put in the place of none of the base's matrices.
        """
        if checkpoint.catalogue.base is None:
            return cls(checkpoint.source, {})
        whole = [m for m in checkpoint.matrices if m.rows is None and m.columns is None]
        adapted: dict[Place, StoredTensor] = {}
        beyond = [entry.name for entry in checkpoint.further]
        for matrix in whole:
            place = Place(matrix.stored.name, matrix.index)
            if place in adapted or matrix.stored.name not in checkpoint.catalogue.tensors:
                beyond.append(matrix.id)  # a head of its own, on a base that ties it to its embedding or has none
            adapted[place] = matrix.stored
        if beyond:
            raise UnsupportedError(
                f"the adapter changes more than the base's matrices: {printable(beyond[0])}",
                file=checkpoint.catalogue.identity.name,
                remedy="Merge it into its base model (peft: merge_and_unload, then save_pretrained) and give that",
            )
        return cls(checkpoint.source, adapted)

    def whole(self, stored: StoredTensor, changes: Mapping[Place, Change]) -> Floats:
        """A tensor of any shape; of a stack every slice, as the model holds it.

        Raises:
            UnsupportedError: its encoding has no such shape.
        """
        if len(stored.shape) == 3:
            return np.stack([self.slice(stored, k, changes) for k in range(stored.shape[0])])
        if len(stored.shape) != 2:
            flat = stored.reshaped((1, int(np.prod(stored.shape, dtype=np.int64)))) if stored.shape != () else None
            if flat is None:
                problem = f"a tensor of {len(stored.shape)} dimensions in {stored.encoding}"
                raise UnsupportedError(problem, tensor=printable(stored.name), remedy="It cannot be ablated")
            return self._decoded(flat, None).reshape(stored.shape)
        place = Place(stored.name)
        return _changed(self._decoded(self.adapted.get(place, stored), None), changes.get(place))

    def slice(self, stored: StoredTensor, index: int, changes: Mapping[Place, Change]) -> Floats:
        """One matrix of a stack, as the model holds it."""
        place = Place(stored.name, index)
        matrix = _changed(self._decoded(self.adapted.get(place, stored), index), changes.get(place))
        return np.ascontiguousarray(matrix.T) if output_first(stored) else matrix

    def rows(self, stored: StoredTensor, indices: Iterable[int]) -> Tensor:
        """Rows of a matrix, in the order asked for."""
        stored = self.adapted.get(Place(stored.name), stored)
        found = [stored.decode(self.source, None, k, k + 1).copy() for k in indices]
        return torch.from_numpy(np.concatenate(found))

    def block(self, stored: StoredTensor, start: int, stop: int) -> Tensor:
        """Rows start to stop of a matrix."""
        stored = self.adapted.get(Place(stored.name), stored)
        return torch.from_numpy(stored.decode(self.source, None, start, stop).copy())

    def _decoded(self, stored: StoredTensor, index: int | None) -> Floats:
        whole = np.empty((stored.rows, stored.columns), dtype=np.float32)
        for start, stop in row_pieces(stored.rows, stored.columns):
            whole[start:stop] = stored.decode(self.source, index, start, stop)
        return whole


def output_first(stored: StoredTensor) -> bool:
    """Whether a stack is stored output first and held input first: GPT-OSS's MXFP4 experts, unlike its BF16 files."""
    return len(stored.shape) == 3 and stored.name.endswith(_OUTPUT_FIRST)


def _changed(matrix: Floats, change: Change | None) -> Floats:
    return matrix if change is None else np.ascontiguousarray(change(matrix), dtype=np.float32)
