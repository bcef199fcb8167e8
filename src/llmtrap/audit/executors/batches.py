"""Which matrices a device measures together: neighbours in the plan whose Gram matrices are of one size.

Experts of a layer are dozens of one shape, and one small matrix leaves most of a device idle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from llmtrap.audit.plan import Task
from llmtrap.checkpoint.sources.base import ByteRange

Batch = tuple[Task, ...]

MOST_TOGETHER = 16
"""Matrices of a batch: more would gain little, and what a worker had in hand is lost with it."""

HELD_BYTES = 1 << 30
"""Entries and Gram matrices of a batch. The stack and the solver need about twice as much again, which small devices
have; the host holds the entries of matrices that are stored as floats."""

# Batches a worker gets in the course of a run: enough for slow and fast ones to end together.
BATCHES_A_WORKER = 4


def batches(tasks: Iterable[Task], most: int) -> Iterator[Batch]:
    """Cut tasks, in their order, into batches of at most `most` that share the solver's calls.

    Only the shorter side counts, which is the Gram matrix': a projection and its transpose go together.
    """
    batch: list[Task] = []
    held = 0
    for task in tasks:
        size = _held_bytes(task)
        alike = batch and min(task.matrix.shape) == min(batch[0].matrix.shape)
        if not alike or len(batch) == most or held + size > HELD_BYTES:
            if batch:
                yield tuple(batch)
            batch, held = [], 0
        batch.append(task)
        held += size
    if batch:
        yield tuple(batch)


def fair_share(most: int, tasks: int, workers: int) -> int:
    """The largest batch with which so many workers end together."""
    return most if workers == 1 else min(most, math.ceil(tasks / (workers * BATCHES_A_WORKER)))


def spans_of(ahead: Iterable[Sequence[Task]]) -> tuple[ByteRange, ...]:
    """What the tasks of these batches will read, in order."""
    return tuple(chain.from_iterable(task.matrix.spans() for task in chain.from_iterable(ahead)))


def _held_bytes(task: Task) -> int:
    """Entries in float32 and a Gram matrix in float64."""
    rows, columns = task.matrix.shape
    return 4 * rows * columns + 8 * min(rows, columns) ** 2
