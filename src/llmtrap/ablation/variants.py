"""From a candidate to changed weights: the ablation itself, and controls that change as much somewhere else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from llmtrap.ablation.candidates import Candidate
from llmtrap.ablation.stored_values import Change

Floats = NDArray[np.float32]
ControlKind = Literal["elsewhere", "same_row", "same_column"]
DRAWS = 2


@dataclass(frozen=True)
class Control:
    """A change of the same size at a place that nothing speaks for."""

    kind: ControlKind
    change: Change


def ablation(candidate: Candidate) -> Change:
    """The candidate taken out: an entry or far entries to the mean, the mean to zero, a component to nothing."""
    if candidate.kind == "entry":
        return _entry_to(candidate.row or 0, candidate.column or 0, candidate.mean)
    if candidate.kind == "mean_shift":
        return lambda matrix: matrix - np.float32(candidate.mean)
    if candidate.kind == "far_entries":
        return _far_to_mean(candidate.mean, candidate.reach)
    return _without_top_component


def controls(candidate: Candidate, shape: tuple[int, int], seed: int) -> Iterator[Control]:
    """Changes to compare with. An entry's: the same δ at random places, ordinary entries of its row and its column.

    Of far entries: the same amounts at random places. A mean shift: noise of its norm. A component: its entries at
    random places.
    """
    rng = np.random.default_rng([seed, zlib.crc32(candidate.name.encode())])
    if candidate.kind != "entry":
        for _ in range(DRAWS):
            yield Control("elsewhere", _scattered(ablation(candidate), int(rng.integers(2**63))))
        return
    row, column = candidate.row or 0, candidate.column or 0
    delta = candidate.mean - (candidate.value or 0.0)
    for _ in range(DRAWS):
        yield Control("elsewhere", _entry_plus(int(rng.integers(shape[0])), int(rng.integers(shape[1])), delta))
    yield Control("same_row", _entry_to(row, _other(rng, shape[1], column), candidate.mean))
    yield Control("same_column", _entry_to(_other(rng, shape[0], row), column, candidate.mean))


def _other(rng: np.random.Generator, count: int, taken: int) -> int:
    drawn = int(rng.integers(max(1, count - 1)))
    return (drawn + (drawn >= taken)) % count


def _entry_to(row: int, column: int, value: float) -> Change:
    def change(matrix: Floats) -> Floats:
        matrix[row, column] = value
        return matrix

    return change


def _entry_plus(row: int, column: int, delta: float) -> Change:
    def change(matrix: Floats) -> Floats:
        matrix[row, column] += np.float32(delta)
        return matrix

    return change


def _far_to_mean(mean: float, reach: float) -> Change:
    def change(matrix: Floats) -> Floats:
        matrix[np.abs(matrix - np.float32(mean)) > reach] = mean
        return matrix

    return change


def _without_top_component(matrix: Floats) -> Floats:
    left, singular, right = svds(matrix.astype(np.float64), k=1, v0=np.ones(min(matrix.shape)))
    rest: Floats = matrix - ((left * singular) @ right).astype(np.float32)
    return rest


def _scattered(change: Change, seed: int) -> Change:
    """What a change does to the entries, done to as many at random places."""

    def scattered(matrix: Floats) -> Floats:
        delta = change(matrix.copy()) - matrix
        flat = np.random.default_rng(seed).permutation(delta.reshape(-1))
        moved: Floats = matrix + flat.reshape(matrix.shape)
        return moved

    return scattered
