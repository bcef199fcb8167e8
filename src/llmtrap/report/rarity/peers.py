"""How far a matrix stands out from its peers: those of its role in the model, or the experts of its layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmtrap.report.document import Matrix
from llmtrap.report.facts import block
from llmtrap.report.rarity.measures import MEASURES, Measure

FEWEST_PEERS: Final = 6
"""Matrices that a group must have: of fewer, neither the middle nor the spread is known."""
DISCOVERY_RATE: Final = 0.01
"""The share of false ones to expect among all that are said to stand out (Benjamini and Hochberg)."""
_TO_DEVIATION = 1.4826  # of a Gaussian's median absolute deviation
_LARGEST_FOR_TREND = 400


@dataclass(frozen=True)
class Departure:
    """One measure of one matrix against its peers.

    Attributes:
        value: the measure, as compared (`measures.MEASURES`).
        expected: what its peers at this depth have.
        z: how many robust deviations lie between.
        q: the false discovery rate at which it would stand out, over all measures and matrices of the model.
        peers: how many matrices the group has.
    """

    value: float
    expected: float
    z: float
    q: float
    peers: int

    @property
    def by(self) -> float:
        """How far the value lies from the expected one."""
        return self.value - self.expected

    @property
    def stands_out(self) -> bool:
        """Whether chance among so many comparisons does not explain it."""
        return self.q <= DISCOVERY_RATE


def departures(matrices: Sequence[Matrix]) -> dict[int, dict[Measure, Departure]]:
    """What each matrix has in each measure, against what its peers have; by its place in `matrices`.

    The peers of an expert are the same matrices of the other experts of its layer. Those of any other are the matrices
    of its role in its tower, from which a straight trend over depth is removed first (Theil and Sen's slope). The
    deviation is the median absolute one; under a measure's grain it counts as the grain. z is held against Student's t
    with two degrees of freedom fewer than peers, since the deviation of few is itself uncertain.
    """
    groups = _groups(matrices)
    if not groups:
        return {}
    stats = import_module("scipy.stats")  # takes half a second, and only judging needs it
    found: list[tuple[int, Measure, float, float, float, int]] = []
    chances: list[float] = []
    for members in groups:
        for name, measure in MEASURES.items():
            have = [(i, value) for i in members if (value := measure.of(matrices[i])) is not None]
            if len(have) < FEWEST_PEERS:
                continue
            places = [i for i, _ in have]
            values = np.array([value for _, value in have])
            expected = _expected(values, _depths(matrices, places))
            rest = values - expected
            deviation = max(_TO_DEVIATION * float(np.median(np.abs(rest))), measure.grain)
            z = rest / deviation
            chances += list(2 * stats.t.sf(np.abs(z), len(have) - 2))
            found += [
                (i, name, float(value), float(middle), float(score), len(have))
                for i, value, middle, score in zip(places, values, expected, z, strict=True)
            ]
    if not found:
        return {}
    rates = stats.false_discovery_control(np.array(chances))
    result: dict[int, dict[Measure, Departure]] = defaultdict(dict)
    for (i, name, value, middle, score, count), rate in zip(found, rates, strict=True):
        result[i][name] = Departure(value, middle, score, float(rate), count)
    return dict(result)


def _groups(matrices: Sequence[Matrix]) -> list[list[int]]:
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if matrix.layer is not None and matrix.non_finite is None and not matrix.all_zero:
            layer = matrix.layer if matrix.expert is not None else None
            groups[block(matrix), matrix.role, layer].append(index)
    return [members for members in groups.values() if len(members) >= FEWEST_PEERS]


def _depths(matrices: Sequence[Matrix], places: Sequence[int]) -> NDArray[np.float64] | None:
    """The layers' numbers; None where all are of one layer, as experts are."""
    layers = np.array([matrices[i].layer for i in places], dtype=np.float64)
    return layers if len(set(layers)) >= FEWEST_PEERS else None


def _expected(values: NDArray[np.float64], depths: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if depths is None or len(values) > _LARGEST_FOR_TREND:
        return np.full(len(values), np.median(values))
    slope = float(import_module("scipy.stats").theilslopes(values, depths).slope)
    level = float(np.median(values - slope * depths))
    return level + slope * depths
