"""Runs of a tensor's elements as boxes, and pieces that cover a tensor."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import Chunk
from llmtrap.checkpoint.training.boxes import boxes, covers, strides

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(SHAPES, st.data())
def test_the_boxes_of_a_run_hold_its_elements_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    size = math.prod(shape)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    numbers = np.arange(size).reshape(shape)
    taken = [
        numbers[tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))].reshape(-1)
        for offsets, lengths in boxes(shape, start, stop)
    ]
    assert np.concatenate([np.empty(0, int), *taken]).tolist() == list(range(start, stop))
    assert len(taken) <= 2 * len(shape) - 1


@given(SHAPES, st.data())
def test_runs_that_make_a_tensor_cover_it_and_others_do_not(shape: tuple[int, ...], data: st.DataObject) -> None:
    size = math.prod(shape)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    ends = [0, *cuts, size]
    chunks = [
        Chunk(offsets, lengths, strides(lengths), ByteRange("f", 0, 0))
        for start, stop in itertools.pairwise(ends)
        for offsets, lengths in boxes(shape, start, stop)
    ]
    assert covers(shape, chunks)
    assert not covers(shape, chunks[1:])
    assert not covers(shape, [*chunks, chunks[0]])
    assert not covers((shape[0] + 1, *shape[1:]), chunks)
    moved = [Chunk((shape[0], *chunks[0].offsets[1:]), *_rest(chunks[0])), *chunks[1:]]
    assert not covers(shape, moved)


def _rest(chunk: Chunk) -> tuple[tuple[int, ...], tuple[int, ...], ByteRange]:
    return chunk.shape, chunk.strides, chunk.span
