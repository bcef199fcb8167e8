"""How well one number tells two groups of checkpoints apart, when checkpoints of a run are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmtrap.models import Model

Vector = NDArray[np.float64]
_LEAST_RUNS = 3
_DRAWS = 2_000
_TAIL = 0.025


class Interval(Model):
    """A number with its 95 % interval over runs; `low` and `high` are null where the runs do not give one."""

    value: float
    low: float | None = Field(default=None)
    high: float | None = Field(default=None)

    def words(self) -> str:
        """`0.91 (0.88 to 0.95)`."""
        text = f"{self.value:.2f}"
        return text if self.low is None else f"{text} ({self.low:.2f} to {self.high:.2f})"


def _wins(positive: Vector, negative: Vector) -> float:
    """Pairs in which the positive is above the negative, ties counted half: Mann and Whitney's U."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).sum()) / 2


def clustered_area(positive: Sequence[Vector], negative: Sequence[Vector]) -> Interval | None:
    """Pooled AUC over all runs, with a percentile interval from resampling whole runs.

    Checkpoints of one run follow one another and are no independent evidence, so runs, not checkpoints, are drawn with
    replacement (Field & Welsh 2007). A draw that has no positives or no negatives says nothing and is left out.

    Args:
        positive: each run's scores of the one group; a run may have scores of one group only.
        negative: each run's scores of the other.

    Returns:
        None where all runs together lack one of the groups.
    """
    wins = np.array([[_wins(a, b) for b in negative] for a in positive], dtype=np.float64)
    ups, downs = (np.array([len(scores) for scores in group], dtype=np.float64) for group in (positive, negative))
    if not ups.sum() or not downs.sum():
        return None
    counts = _counts(len(positive))
    drawn = np.einsum("di,ij,dj->d", counts, wins, counts)
    return _interval(wins.sum() / (ups.sum() * downs.sum()), drawn, (counts @ ups) * (counts @ downs), len(positive))


def clustered_rate(runs: Sequence[NDArray[np.bool_]]) -> Interval | None:
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
        bound = _TAIL ** (1 / trials)
        low, high = (bound, 1.0) if share == 1.0 else (0.0, 1 - bound)
        return Interval(value=share, low=low, high=high)
    counts = _counts(len(runs))
    return _interval(share, counts @ hits, counts @ sizes, trials)


def _counts(runs: int) -> Vector:
    """How often each run is drawn, [draws, runs]."""
    random = np.random.default_rng(0)
    return random.multinomial(runs, np.full(runs, 1.0 / runs), size=_DRAWS).astype(np.float64)


def _interval(value: float, numerators: Vector, denominators: Vector, runs: int) -> Interval:
    usable = denominators > 0
    if runs < _LEAST_RUNS or not usable.any():
        return Interval(value=float(value))
    low, high = np.quantile(numerators[usable] / denominators[usable], [_TAIL, 1 - _TAIL])
    if low == high:
        return Interval(value=float(value))  # every draw agrees: no interval can be read off
    return Interval(value=float(value), low=float(low), high=float(high))


def threshold_at(negative: Vector, rate: float) -> float:
    """The least score that at most a share `rate` of the negatives reach: a threshold where theory gives none.

    The threshold is one of the negatives' scores plus the smallest step upwards, so 'reach' is ≥.
    """
    order = np.sort(negative)[::-1]
    allowed = int(np.floor(rate * len(order)))
    return float(np.nextafter(order[allowed], np.inf)) if allowed < len(order) else float("-inf")
