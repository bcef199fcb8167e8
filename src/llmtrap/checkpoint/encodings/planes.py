"""Codes whose words each hold one code from every *plane* of a matrix: its first half, its second half and so on.

HQQ and optimum-quanto reshape a matrix into groups, cut the groups into as many equal planes as a word has codes, and
put code i of every plane into word i. Only the position in the flattened matrix matters here, and not the groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.coded import CodedTensor, integers
from llmtrap.checkpoint.encodings.flat_blocks import covering, flat_tiles
from llmtrap.checkpoint.encodings.grids import INTEGERS, SCALES, as_numbers
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import TensorEntry

_STORED = {**INTEGERS, **{name: stored for name, stored in SCALES.items() if name != "U8"}}


@dataclass(frozen=True)
class Shifts:
    """Where in a word the code of each plane lies: plane k is `shifts[k]` bits up; `bits` wide."""

    bits: int
    shifts: tuple[int, ...]

    def codes(self, words: NDArray[np.unsignedinteger], first: int, last: int) -> NDArray[np.uint8]:
        """The codes at positions [first, last) of the flattened matrix."""
        mask = words.dtype.type((1 << self.bits) - 1)
        found = np.empty(last - first, dtype=np.uint8)
        for plane in range(first // words.size, min(len(self.shifts), -(-last // words.size))):
            start, stop = max(first, plane * words.size), min(last, (plane + 1) * words.size)
            of_plane = words[start - plane * words.size : stop - plane * words.size]
            found[start - first : stop - first] = of_plane >> words.dtype.type(self.shifts[plane]) & mask
        return found


@dataclass(frozen=True)
class Step:
    """One step of decoding: the numbers of an entry of `parts`, multiplied by (or subtracted, where `subtracts`)."""

    part: int
    subtracts: bool


@dataclass(frozen=True)
class PlaneTensor(CodedTensor):
    """A matrix in planes. `parts` are the words, then what `steps` name, then what only says how it is stored.

    Numbers belong to runs of `group` elements of the flattened matrix or, where `interleaved`, to every element at the
    same place in rows of as many elements as there are numbers.
    """

    layout: Shifts
    group: int
    interleaved: bool
    steps: tuple[Step, ...]

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """Everything: any row may have its codes anywhere."""
        del start, stop
        return self.shared_spans(index)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Everything."""
        del index
        return tuple(part.span for part in self.parts[: 1 + len(self.steps)])

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes of the rows, put into order, with what belongs to each."""
        del index
        words = source.read(self.parts[0].span)
        wide = words if self.parts[0].dtype in ("U8", "I8") else words.view(np.uint32)
        first, last = start * self.columns, stop * self.columns
        codes = self.layout.codes(wide, first, last).reshape(stop - start, -1)
        tiles = tuple(self._tiles(source, step, first, (stop - start, self.columns)) for step in self.steps)
        return Packed(codes, integers(), tiles)

    def _tiles(self, source: Source, step: Step, first: int, shape: tuple[int, int]) -> Tiles:
        entry = self.parts[step.part]
        numbers = as_numbers(source.read(entry.span), _STORED[entry.dtype])
        last = first + math.prod(shape)
        if step.subtracts:
            numbers = -numbers
        operation: Literal["add", "multiply"] = "add" if step.subtracts else "multiply"
        if self.interleaved:
            each = numbers[np.arange(first, last) % numbers.size].reshape(shape)
            return Tiles(each, None, 1, 1, operation=operation)
        a, b = covering(first, last, self.group)
        return flat_tiles(numbers[a:b], self.group, first, shape, operation)


def fits(words: TensorEntry, layout: Shifts, size: int) -> bool:
    """Whether the words hold as many codes, with no more padding than a row of the last plane needs."""
    held = words.size * len(layout.shifts)
    return size <= held < size + len(layout.shifts) * max(1, words.shape[-1])


def counted(entries: Sequence[TensorEntry | None], count: int) -> bool:
    """Whether each is there and has so many numbers of a kind that is read."""
    return all(entry is not None and entry.size == count and entry.dtype in _STORED for entry in entries)
