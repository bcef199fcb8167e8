"""Which matrices cannot have a Correlation Trap whatever the shuffle: decided from the entries' distribution alone.

Sources: Baik, Ben Arous, Péché 2005 and Benaych-Georges & Nadakuditi 2012, for when one entry or the mean separates
from the bulk; the kurtosis conditions bound what many moderately large entries can do together, and are measured, not
derived (docs/definitions.md).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.moments import MomentPass, Moments, moments_of_histogram

Floats = NDArray[np.floating]

ENTRY_RATIO_LIMIT = 0.25
MEAN_RATIO_LIMIT = 0.25
KURTOSIS_FACTOR = 1.25
COLUMN_NORM_LIMIT = 0.3
# Entries are collected from this fraction of the entry limit on, so that the limit can shrink as they are left out.
_COLLECT_FROM = 0.5
# Where the entries left out hold more than this share of the variance, the rest is summed again without them: the
# difference of two sums that are right to seven digits would not give s² to the four digits that z needs.
_RECOUNT_ABOVE = 0.99


@dataclass(frozen=True)
class Exceedances:
    """Entries far from the mean, with their places in the stored matrix, in the float width they were given in."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True)
class Bulk:
    """Mean and variance of the bulk entries: those within the entry limit s(NM)^¼ of the mean, s being their own."""

    mean: float
    variance: float

    @property
    def deviation(self) -> float:
        """s, the standard deviation."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Certificate:
    """The numbers that decide, and the decision.

    `entry_ratio` is e = max (w−m)²/(s²√(NM)): one entry separates when it passes 1. `mean_ratio` is d = m²√(NM)/s²:
    the mean separates when it passes 1.
    """

    entry_ratio: float
    mean_ratio: float
    kurtosis: float
    max_sigmas: float
    certified: bool


def entry_limit(rows: int, columns: int) -> float:
    """(NM)^¼: how many bulk standard deviations one entry needs to separate."""
    return math.sqrt(math.sqrt(rows * columns))


def certify(shape: tuple[int, int], moments: Moments, bulk: Bulk) -> Certificate:
    """Decide from one pass over the entries whether a shuffle could show an outlier."""
    n, m = max(shape), min(shape)
    root = math.sqrt(n * m)
    deviation = max(moments.maximum - bulk.mean, bulk.mean - moments.minimum)
    if bulk.variance == 0:
        # A constant matrix: a shuffle changes nothing, and there is no bulk to stand out of.
        return Certificate(0.0, 0.0, 0.0, 0.0, certified=True)
    entry_ratio = min(deviation / (bulk.variance * root) * deviation, sys.float_info.max)
    mean_ratio = min(bulk.mean**2 * root / bulk.variance, sys.float_info.max)
    kurtosis = moments.kurtosis
    certified = (
        entry_ratio < ENTRY_RATIO_LIMIT
        and mean_ratio < MEAN_RATIO_LIMIT
        and kurtosis < KURTOSIS_FACTOR * float(n * m) ** (1 / 6)
        and (kurtosis - 1) * 2 * math.log(m) / m < COLUMN_NORM_LIMIT
    )
    return Certificate(entry_ratio, mean_ratio, kurtosis, deviation / bulk.deviation, certified)


def makes_no_trap(shape: tuple[int, int], rest: Moments) -> bool:
    """Whether what is left of a matrix of this shape, without its far entries, is certified by itself."""
    return certify(shape, rest, Bulk(rest.mean, rest.variance)).certified


def predicted_outlier(strength: float, aspect: float) -> float:
    """λ/(s²N) of a rank-one spike of strength θ² = (w−m)²/(s²N) or m²M/s², with c = M/N: (1 + θ²)(c + θ²)/θ²."""
    return (1 + strength) * (aspect + strength) / strength


def expected_overlaps(strength: float, aspect: float) -> tuple[float, float]:
    """Squared overlap of the outlier's (right, left) singular vectors with the spike that makes it; 0 at the limit."""
    c = aspect
    right = 1 - c * (1 + strength) / (strength * (strength + c))
    left = 1 - (c + strength) / (strength * (strength + 1))
    return max(right, 0.0), max(left, 0.0)


def exceedances(blocks: Iterable[Floats], centre: float, distance: float) -> Exceedances:
    """All entries with |w − centre| > distance, of a matrix given top to bottom by blocks of rows."""
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    top = 0
    for block in blocks:
        found = np.nonzero(_outside(block, centre, distance))
        rows.append(found[0] + top)
        columns.append(found[1])
        values.append(block[found])
        top += block.shape[0]
    empty, nowhere = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Exceedances(
        np.concatenate(rows or [nowhere]),
        np.concatenate(columns or [nowhere]),
        np.concatenate(values or [empty]),
    )


def _outside(block: Floats, centre: float, distance: float) -> NDArray[np.bool_]:
    """Where |w − centre| > distance, by comparisons alone: no temporary float array, and float32 stays float32."""
    greatest = float(np.finfo(block.dtype).max)
    return (block > min(centre + distance, greatest)) | (block < max(centre - distance, -greatest))


def bulk_of(
    shape: tuple[int, int],
    moments: Moments,
    blocks: Callable[[], Iterable[Floats]],
    beyond: Callable[[float, float], Exceedances] | None = None,
) -> Bulk:
    """Leave out the entries beyond the entry limit, again and again until the limit settles.

    The blocks are read again only where the largest entry passes the limit. At most 4√(NM)·(s₀/s)² entries are ever
    held, by Chebyshev's inequality. A bulk never loses its last spread: where leaving entries out would leave a
    constant (a one-hot matrix), they stay.

    Args:
        shape: rows and columns.
        moments: of all entries.
        blocks: gives the matrix top to bottom, as often as called.
        beyond: `exceedances` given centre and distance, where they come quicker than from the blocks.
    """
    limit = entry_limit(*shape)
    whole = Bulk(moments.mean, moments.variance)
    if moments.variance == 0 or moments.largest_deviation <= limit * whole.deviation:
        return whole
    bulk, reach, centre = whole, 0.0, 0.0
    values = np.zeros(0)
    for _ in range(100):
        if reach == 0.0 or bulk.deviation * limit < reach:
            reach = _COLLECT_FROM * limit * bulk.deviation
            centre = bulk.mean
            found = exceedances(blocks(), centre, reach) if beyond is None else beyond(centre, reach)
            values = found.values.astype(np.float64)
        # The collection is centred on the mean of its own time; entries between the two limits are few and inside.
        gone = values[np.abs(values - bulk.mean) > limit * bulk.deviation]
        settled = _without(moments, gone)
        if settled.variance < (1 - _RECOUNT_ABOVE) * moments.variance:
            inside = EntriesWithin(blocks, bulk.mean, limit * bulk.deviation)
            sums = MomentPass()
            for block in inside:
                sums.add(block)
            rest = sums.finish(inside)
            return bulk if rest.variance == 0 else bulk_of(shape, rest, inside.blocks)
        if settled == bulk:
            return bulk
        bulk = settled
    return bulk


def bulk_of_histogram(shape: tuple[int, int], values: NDArray[np.float64], counts: NDArray[np.int64]) -> Bulk:
    """The same for a matrix known by the values it holds and how often: by its own moments in each round."""
    limit = entry_limit(*shape)
    inside = counts > 0
    bulk: Bulk | None = None
    for _ in range(100):
        moments = moments_of_histogram(values[inside], counts[inside])
        found = Bulk(moments.mean, moments.variance)
        if bulk is not None and (found == bulk or found.variance == 0):
            return bulk
        bulk = found
        inside = (counts > 0) & (np.abs(values - bulk.mean) <= limit * bulk.deviation)
        if not inside.any():
            return bulk
    assert bulk is not None  # noqa: S101 - the loop ran
    return bulk


@dataclass(frozen=True)
class EntriesWithin:
    """The blocks without their entries far from the centre: a column of those that stay."""

    source: Callable[[], Iterable[Floats]]
    centre: float
    distance: float

    def __iter__(self) -> Iterator[Floats]:
        for block in self.source():
            yield block[~_outside(block, self.centre, self.distance)].reshape(-1, 1)

    def blocks(self) -> Iterator[Floats]:
        """The same, as a callable."""
        return iter(self)


def _without(moments: Moments, gone: NDArray[np.float64]) -> Bulk:
    """Mean and variance of the entries that stay. The sums are taken about the mean of all, so that nothing cancels."""
    stay = moments.count - gone.size
    if stay == 0:
        return Bulk(moments.mean, 0.0)
    deviations = gone - moments.mean
    shift = -float(deviations.sum()) / stay
    second = (moments.count * moments.variance - float((deviations**2).sum())) / stay
    return Bulk(moments.mean + shift, max(second - shift**2, 0.0))
