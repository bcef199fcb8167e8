"""Weight normalisation: a weight stored as its direction v and its length g, W = g · v / ‖v‖ (arXiv 1602.07868).

torch.nn.utils.weight_norm stores `weight_g` and `weight_v`, its successor in torch.nn.utils.parametrizations
`parametrizations.weight.original0` and `original1`. g has one number for each index of one dimension of v, the first by
default, or a single one for all of v; the norm is over all other dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import Encoding, Floats, StoredTensor, row_pieces
from llmtrap.checkpoint.encodings.plain import DTYPES, PlainTensor
from llmtrap.checkpoint.names import printable
from llmtrap.errors import CheckpointError

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_PAIRS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


@dataclass(frozen=True)
class WeightNormTensor(StoredTensor):
    """The product of length and direction. `parts` are g's and v's.

    Entry j of v, counted last dimension fastest, has length number (j // stride) % count.
    """

    count: int
    stride: int
    _factors: list[NDArray[np.float64]] = field(default_factory=list, compare=False, repr=False)

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """float64 where the direction is, else float32."""
        return self._direction(self.shape).dtype

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor | None:
        """The entries follow one another, whatever their shape."""
        return replace(self, shape=shape)

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The rows of v, and all lengths."""
        return (*self._direction(self.shape).spans(index, start, stop), self.parts[0].span)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows of g · v / ‖v‖."""
        block = self._direction(self.shape).decode(source, index, start, stop, out)
        factors = self._scale(source).astype(block.dtype)
        first = ((0 if index is None else index * self.rows) + start) * self.columns
        with np.errstate(invalid="ignore", over="ignore"):
            if self.stride % self.columns == 0:
                rows = (first + np.arange(stop - start) * self.columns) // self.stride % self.count
                block *= factors[rows][:, None]
            else:
                block *= factors[self._numbers(first, block.size)].reshape(block.shape)
        return block

    def _scale(self, source: Source) -> NDArray[np.float64]:
        """The factor of each length, g / ‖v‖, worked out once, in a pass over v."""
        if not self._factors:
            direction, total = self._direction((1, math.prod(self.shape))), np.zeros(self.count)
            flat = replace(direction, shape=(direction.columns, 1))
            for start, stop in row_pieces(flat.rows, 1):
                squares = flat.decode(source, None, start, stop).reshape(-1).astype(np.float64) ** 2
                total += np.bincount(self._numbers(start, stop - start), squares, self.count)
            lengths = replace(flat, parts=(self.parts[0],), encoding=self.parts[0].dtype, shape=(1, self.count))
            with np.errstate(invalid="ignore", divide="ignore"):
                self._factors.append(lengths.decode(source, None, 0, 1)[0].astype(np.float64) / np.sqrt(total))
        return self._factors[0]

    def _numbers(self, first: int, count: int) -> NDArray[np.int64]:
        """Which length each of these entries has."""
        return np.arange(first, first + count, dtype=np.int64) // self.stride % self.count

    def _direction(self, shape: tuple[int, ...]) -> PlainTensor:
        v = self.parts[1]
        return PlainTensor(self.name, self.module, v.dtype, shape, (v,))


class WeightNorm(Encoding):
    """Finds lengths and directions that belong together."""

    name = "weight norm"
    reads = "weight_g and weight_v, or parametrizations.weight.original0 and 1, multiplied out"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:  # noqa: ARG002
        """Take every pair.

        Raises:
            CheckpointError: one without the other, or shapes that do not fit.
        """
        found: list[StoredTensor] = []
        for length, direction in _PAIRS:
            for name in [name for name in free if name == direction or name.endswith(f".{direction}")]:
                place = name.removesuffix(direction)
                v, g = free[name], free.get(place + length)
                if v.dtype not in DTYPES or len(v.shape) < 2:
                    continue
                if g is None or g.dtype not in DTYPES:
                    raise _wrong(v, f"the direction of a weight without its length {printable(place + length)}")
                count, stride = _layout(g, v)
                del free[g.name], free[v.name]
                module = place.rstrip(".") or "weight"
                encoding = f"{v.dtype} with weight norm"
                found.append(WeightNormTensor(v.name, module, encoding, v.shape, (g, v), count, stride))
        return found


def _layout(g: TensorEntry, v: TensorEntry) -> tuple[int, int]:
    """How many lengths there are, and how many entries apart they change."""
    if g.size == 1:
        return 1, 1
    for axis, size in enumerate(v.shape):
        shape = tuple(size if k == axis else 1 for k in range(len(v.shape)))
        if g.shape in (shape, (size,)) and 0 not in v.shape:
            return size, math.prod(v.shape[axis + 1 :])
    raise _wrong(v, f"lengths of shape {list(g.shape)} for a weight of {list(v.shape)}")


def _wrong(entry: TensorEntry, problem: str) -> CheckpointError:
    remedy = "Save the model after torch.nn.utils.remove_weight_norm (or parametrize.remove_parametrizations)"
    return CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=remedy)
