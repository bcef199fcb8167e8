"""Matrices that were rotated before they were rounded, where the configuration says how: undone as they are read.

compressed-tensors' `transform_config` lists schemes. One of type `hadamard` that is not randomised multiplies a weight
[out, in] by Sylvester's Hadamard matrix over √n, at the input (along the columns) or at the output (along the rows), in
blocks of n = `head_dim` where that is given. That matrix is symmetric and its own inverse, so `inverse` says nothing
here, and undoing is doing it again. The weights of an embedding are [in, out]. All or nothing is undone: where one
place is not understood, the checkpoint stays called rotated.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import Floats, StoredTensor, row_pieces

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue

UNDONE = "rotation undone"
_PIECE = 1 << 20  # entries of the other rows decoded at one time, where rows are mixed
# Expressions that take a time in proportion to the name: one `.*` at the start, then one character after another.
_EXPRESSION = re.compile(r"re:(\.\*)?(\w|\\\.|\.|\[\w+\])*\$?")
_LONGEST = 300
_MOST = 3  # rotations of one matrix: mixing rows of mixed rows reads them again and again
_MOST_SCHEMES = 16
_EMBEDDING = re.compile(r".*(embed|wte|wpe)[^.]*")
_MAYBE_LINEAR = re.compile(r".*(router|gate|conv|norm)[^.]*")  # no nn.Linear in every model


class _UnknownTransformError(Exception):
    """A transform that is not understood."""


@dataclass(frozen=True)
class Rotated(StoredTensor):
    """Another tensor, along one axis multiplied by blocks of Hadamard matrices of order `order`."""

    rotated: StoredTensor
    order: int
    of_rows: bool

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """The other's."""
        return self.rotated.dtype

    @property
    def stored_bits(self) -> float:
        """The other's."""
        return self.rotated.stored_bits

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The other's: where rows are mixed, of all rows in the blocks that are touched."""
        return self.rotated.spans(index, *self._needed(start, stop))

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """The other's."""
        return self.rotated.shared_spans(index)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows of the other, rotated back in float64. Mixed rows are summed piece by piece: no matrix lies whole."""
        block = np.empty((stop - start, self.columns), dtype=self.dtype) if out is None else out
        with np.errstate(over="ignore", invalid="ignore"):
            if self.of_rows:
                block[...] = self._mixed(source, index, start, stop)
            else:
                self.rotated.decode(source, index, start, stop, block)
                blocks = block.astype(np.float64).reshape(-1, self.order)
                block[...] = _transformed(blocks).reshape(block.shape)
        return block

    def _mixed(self, source: Source, index: int | None, start: int, stop: int) -> NDArray[np.float64]:
        total = np.zeros((stop - start, self.columns))
        first, last = self._needed(start, stop)
        rows = np.arange(start, stop)
        for begin, end in row_pieces(last - first, max(self.columns, stop - start), _PIECE):
            others = np.arange(first + begin, first + end)
            piece = self.rotated.decode(source, index, first + begin, first + end).astype(np.float64)
            same = rows[:, None] // self.order == others // self.order
            odd = np.bitwise_count((rows[:, None] & others) % self.order) & 1
            total += np.where(same, 1.0 - 2.0 * odd, 0.0) @ piece
        return total / math.sqrt(self.order)

    def _needed(self, start: int, stop: int) -> tuple[int, int]:
        if not self.of_rows:
            return start, stop
        return start // self.order * self.order, -(-stop // self.order) * self.order


def _transformed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every row times Sylvester's Hadamard matrix over √n, by sums and differences of halves (fast Walsh-Hadamard)."""
    order, half = values.shape[1], 1
    while half < order:
        pairs = values.reshape(-1, order // (2 * half), 2, half)
        values = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    return values.reshape(-1, order) / math.sqrt(order)


def undo_rotation(catalogue: Catalogue, taken: Sequence[StoredTensor]) -> list[StoredTensor]:
    """The same tensors, with the rotations of `transform_config` undone where every one of them is understood."""
    try:
        steps = list(_steps(catalogue.config, [stored for stored in taken if len(stored.shape) > 1]))
    except _UnknownTransformError:
        return list(taken)
    if any(count > _MOST for count in Counter(name for name, _, _ in steps).values()):
        return list(taken)
    found = {stored.name: stored for stored in taken}
    for name, order, of_rows in reversed(steps):
        it = found[name]
        encoding = it.encoding if isinstance(it, Rotated) else f"{it.encoding}, {UNDONE}"
        found[name] = Rotated(name, it.module, encoding, it.shape, it.parts, it, order, of_rows)
    return [found[stored.name] for stored in taken]


def _steps(config: dict[str, Any], taken: Sequence[StoredTensor]) -> Iterator[tuple[str, int, bool]]:
    """Each rotation of a weight, in the order in which they were done: its tensor, the order, whether rows were mixed.

    Raises:
        _UnknownTransformError: something in the configuration is not understood.
    """
    transforms = section(config, "quantization_config").get("transform_config")
    groups = transforms.get("config_groups") if isinstance(transforms, dict) else None
    if isinstance(groups, dict) and len(groups) > _MOST_SCHEMES:
        raise _UnknownTransformError
    for scheme in groups.values() if isinstance(groups, dict) else ():
        places = scheme.get("apply") if isinstance(scheme, dict) else None
        if not isinstance(places, list) or len(places) > _MOST_SCHEMES:
            raise _UnknownTransformError
        for place in places:
            location = place.get("location") if isinstance(place, dict) else None
            if not isinstance(location, str):
                raise _UnknownTransformError
            if not location.startswith("weight"):
                continue
            if scheme.get("type") != "hadamard" or scheme.get("randomize") or location[6:] not in ("_input", "_output"):
                raise _UnknownTransformError
            chosen = [stored for stored in taken if _targeted(stored.module, place)]
            if not chosen:
                raise _UnknownTransformError
            for stored in chosen:
                of_rows = (location == "weight_output") != bool(_EMBEDDING.fullmatch(stored.module))
                yield stored.name, _order(stored, scheme.get("head_dim"), of_rows=of_rows), of_rows


def _order(stored: StoredTensor, head_dim: object, *, of_rows: bool) -> int:
    size = stored.rows if of_rows else stored.columns
    order = size if head_dim is None else head_dim
    if len(stored.shape) != 2 or type(order) is not int or order < 1 or size % order or order & (order - 1):
        raise _UnknownTransformError
    return order


def _targeted(module: str, place: dict[str, Any]) -> bool:
    """Whether a place of compressed-tensors names this module: by its class, its name, or an expression for it."""
    return _named(module, place.get("targets")) and not _named(module, place.get("ignore") or [])


def _is_plain(expression: str) -> bool:
    return len(expression) <= _LONGEST and _EXPRESSION.fullmatch(expression) is not None


def _named(module: str, targets: object) -> bool:
    found = False
    for target in [targets] if isinstance(targets, str) else targets if isinstance(targets, list) else [None]:
        if not isinstance(target, str) or (target.startswith("re:") and not _is_plain(target)):
            raise _UnknownTransformError
        if target.startswith("re:"):
            found |= re.match(target[3:], module) is not None
        elif target == "Linear" and not _EMBEDDING.fullmatch(module):
            if _MAYBE_LINEAR.fullmatch(module) and not module.endswith("gate_proj"):
                raise _UnknownTransformError
            found = True
        else:
            found |= target == module or (target == "Embedding" and _EMBEDDING.fullmatch(module) is not None)
    return found
