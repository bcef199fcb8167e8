"""Pieces of a tensor that make it whole: checked for covering it exactly, and runs of its elements cut into boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from llmtrap.checkpoint.tensors import Chunk

MAX_CHUNKS = 4096
"""Pieces of one tensor; more processes than that have never held a share of one."""


def covers(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> bool:
    """Whether the chunks lie within the shape, do not overlap, and leave nothing out."""
    if not shape:
        return len(chunks) == 1 and chunks[0].shape == ()
    if not 0 < len(chunks) <= MAX_CHUNKS or sum(math.prod(chunk.shape) for chunk in chunks) != math.prod(shape):
        return False
    low = np.array([chunk.offsets for chunk in chunks], dtype=np.int64)
    high = low + np.array([chunk.shape for chunk in chunks], dtype=np.int64)
    if (low < 0).any() or (high > np.array(shape)).any():
        return False
    for k in range(len(chunks) - 1):
        if (np.minimum(high[k], high[k + 1 :]) > np.maximum(low[k], low[k + 1 :])).all(axis=1).any():
            return False
    return True


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Elements [start, stop) of a tensor, counted last dimension fastest, as boxes: (offsets, shape) in their order.

    A run that begins or ends within a row is cut there: part of a row, whole rows, part of a row.
    """
    if len(shape) <= 1:
        if start < stop:
            yield ((start,), (stop - start,)) if shape else ((), ())
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row
    if first > last or (first == last and start < first * row and stop > last * row and start // row == stop // row):
        yield from _within(shape, start // row, start % row, stop - start // row * row)
        return
    if start < first * row:
        yield from _within(shape, first - 1, start - (first - 1) * row, row)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    if stop > last * row:
        yield from _within(shape, last, 0, stop - last * row)


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of elements that follow one another, last dimension fastest."""
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def _within(
    shape: tuple[int, ...], row: int, start: int, stop: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for offsets, size in boxes(shape[1:], start, stop):
        yield (row, *offsets), (1, *size)
