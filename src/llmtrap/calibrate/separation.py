"""How well one number tells two groups of checkpoints apart, when checkpoints of a run are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval over runs; `low` and `high` are None where the runs do not give one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RunScores:
    """One run's scores: a number for each checkpoint of the one group and of the other."""

    positive: Vector
    negative: Vector


_LEAST_RUNS = 3


def area_under_curve(positive: Vector, negative: Vector) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann–Whitney U / nm).

    Raises:
        ValueError: a group is empty.
    """
    if not len(positive) or not len(negative):
        raise ValueError("both groups need at least one score")
    return _wins(positive, negative) / (len(positive) * len(negative))


def _wins(positive: Vector, negative: Vector) -> float:
    """Pairs in which the positive is above the negative; a tie is half a pair."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).sum()) / 2


def clustered_area(
    runs: Sequence[RunScores], *, draws: int = 2_000, seed: int = 0, level: float = 0.95
) -> Estimate | None:
    """Pooled AUC over all runs, with a percentile interval from resampling whole runs.

    Checkpoints of one run follow one another and are no independent evidence, so runs, not checkpoints, are drawn with
    replacement (Field & Welsh 2007). A draw that has no positives or no negatives says nothing and is left out.

    Args:
        runs: each run's scores; a run may have scores of one kind only.
        draws: bootstrap draws.
        seed: of the draws.
        level: coverage aimed at.

    Returns:
        None where all runs together lack one of the kinds.
    """
    wins = np.array([[_wins(a.positive, b.negative) for b in runs] for a in runs], dtype=np.float64)
    positives = np.array([len(run.positive) for run in runs], dtype=np.float64)
    negatives = np.array([len(run.negative) for run in runs], dtype=np.float64)
    if not positives.sum() or not negatives.sum():
        return None
    value = wins.sum() / (positives.sum() * negatives.sum())
    counts = _draws(len(runs), draws, seed)
    pairs = (counts @ positives) * (counts @ negatives)
    drawn = np.einsum("di,ij,dj->d", counts, wins, counts)
    return _estimate(value, drawn, pairs, len(runs), level)


def clustered_rate(
    runs: Sequence[NDArray[np.bool_]], *, draws: int = 2_000, seed: int = 0, level: float = 0.95
) -> Estimate | None:
    """Share of True over all runs' checkpoints, with the same kind of interval; None where there are none.

    Where every checkpoint of every run agrees, resampling can only repeat it, and would claim certainty from a handful
    of runs. Then each run counts as one trial, and the exact binomial bound stands in (Clopper & Pearson 1934).
    """
    hits = np.array([float(run.sum()) for run in runs])
    sizes = np.array([float(len(run)) for run in runs])
    if not sizes.sum():
        return None
    share, trials = float(hits.sum() / sizes.sum()), int((sizes > 0).sum())
    if share in (0.0, 1.0) and trials >= _LEAST_RUNS:
        bound = ((1 - level) / 2) ** (1 / trials)
        return Estimate(share, bound, 1.0) if share == 1.0 else Estimate(share, 0.0, 1 - bound)
    counts = _draws(len(runs), draws, seed)
    return _estimate(share, counts @ hits, counts @ sizes, trials, level)


def _draws(runs: int, draws: int, seed: int) -> Vector:
    """How often each run is drawn, [draws, runs]."""
    random = np.random.default_rng(seed)
    return random.multinomial(runs, np.full(runs, 1.0 / runs), size=draws).astype(np.float64)


def _estimate(value: float, numerators: Vector, denominators: Vector, runs: int, level: float) -> Estimate:
    usable = denominators > 0
    if runs < _LEAST_RUNS or not usable.any():
        return Estimate(float(value), None, None)
    tail = (1 - level) / 2
    low, high = np.quantile(numerators[usable] / denominators[usable], [tail, 1 - tail])
    if low == high:
        return Estimate(float(value), None, None)  # every draw agrees: no interval can be read off
    return Estimate(float(value), float(low), float(high))


def threshold_at(negative: Vector, rate: float) -> float:
    """The least score that at most a share `rate` of the negatives reach: a threshold where theory gives none.

    The threshold is one of the negatives' scores plus the smallest step upwards, so 'reach' is ≥.
    """
    order = np.sort(negative)[::-1]
    allowed = int(np.floor(rate * len(order)))
    return float(np.nextafter(order[allowed], np.inf)) if allowed < len(order) else float("-inf")
