"""α: the power-law exponent of the ESD's tail, by maximum likelihood and the least Kolmogorov–Smirnov distance.

Source: Clauset, Shalizi, Newman 2009, as WeightWatcher applies it to eigenvalues (arXiv 2602.02859).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Band = Literal["over", "well", "under"]

# Relative to the largest eigenvalue, so that α does not change when a matrix is scaled. Below it, eigenvalues of a
# float32 Gram matrix are rounding noise.
RELATIVE_FLOOR = 1e-7

# Eigenvalues that differ by less than this, relative to the lower one, are one value: only rounding tells them apart.
DISTINCT = 1e-6

OVER_TRAINED_BELOW = 2.0
UNDER_TRAINED_ABOVE = 6.0

# A fit that fails one of these is reported but marked unreliable, and claims no band.
LEAST_EIGENVALUES = 50
LEAST_TAIL = 8
LARGEST_KS = 0.15

# An x_min whose distance is within this many 1/√n of the least fits as well: the distance of n draws from their own
# law varies by 0.26/√n. Together with the error of α at each such x_min, 90 % two-sided, the interval covers nine of
# ten planted exponents in every case tried (docs/validity.md, section 5).
TIED_WITHIN = 0.2
NORMAL_90 = 1.645

# Candidates are scanned in slabs, so that memory is a slab × M and not M × M.
_SLAB = 64


@dataclass(frozen=True)
class PowerLawFit:
    """ρ(λ) ~ λ^(−alpha) for λ ≥ xmin.

    `ks` is the Kolmogorov–Smirnov distance of the fit, `tail` the number of eigenvalues in it, `usable` the number
    above the floor. `low` and `high` enclose the exponents of all x_min that fit as well. `reason` says why the fit is
    unreliable, or is None.
    """

    alpha: float
    sigma: float
    xmin: float
    ks: float
    tail: int
    usable: int
    reason: str | None
    low: float
    high: float

    @property
    def reliable(self) -> bool:
        """Whether a band may be claimed from this fit."""
        return self.reason is None

    @property
    def band(self) -> Band | None:
        """`over` (α < 2), `well` or `under` (α > 6) trained; None for an unreliable fit.

        The fit cannot know whether noise has such an α too: `noise.compare_with_noise`.
        """
        if not self.reliable:
            return None
        if self.alpha < OVER_TRAINED_BELOW:
            return "over"
        return "under" if self.alpha > UNDER_TRAINED_ABOVE else "well"


def usable_eigenvalues(eigenvalues: Floats, floor: float | None = None) -> Floats:
    """Eigenvalues above the floor, ascending. `floor` is absolute; by default 10⁻⁷ of the largest."""
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64))
    if values.size == 0 or not values[-1] > 0:
        return values[:0]
    return values[values > (RELATIVE_FLOOR * values[-1] if floor is None else floor)]


def fit_power_law(eigenvalues: Floats, *, floor: float | None = None) -> PowerLawFit | None:
    """Fit the tail of an ESD: every distinct eigenvalue above the floor but the largest is tried as x_min.

    Equal ones are tried once, with all of them in the tail. With n eigenvalues ≥ x_min, α = 1 + n / Σ ln(λ_i / x_min);
    the x_min whose fitted distribution lies nearest to the empirical one, (0, 1, …, n−1)/n, wins.

    Args:
        eigenvalues: of WᵀW, in any order.
        floor: absolute lower limit in place of the relative one, for comparison with other tools.

    Returns:
        The fit, or None where fewer than two distinct eigenvalues stand above the floor.
    """
    values = usable_eigenvalues(eigenvalues, floor)
    starts = _distinct(values)
    if starts.size < 2:
        return None
    logs = np.log(values)
    size = values.size
    counts = size - np.arange(size - 1, dtype=np.float64)
    excess = np.cumsum(logs[::-1])[::-1][:-1] - counts * logs[:-1]
    with np.errstate(divide="ignore"):
        alphas = 1 + counts / excess
    # A candidate whose tail has no spread has no exponent; WeightWatcher leaves its distance at 1 as well.
    distances = np.where(np.isfinite(alphas) & (excess > 0), _ks_distances(logs, alphas), 1.0)
    # The largest value is none to start from, nor is one that merely rounds to another.
    candidates = starts[:-1]
    best = int(candidates[np.argmin(distances[candidates])])
    tail = size - best
    alpha, distance = float(alphas[best]), float(distances[best])
    if not math.isfinite(alpha):
        return None
    low, high = _interval(alphas[candidates], distances[candidates], counts[candidates], distance)
    return PowerLawFit(
        alpha=alpha,
        sigma=(alpha - 1) / math.sqrt(tail),
        xmin=float(values[best]),
        ks=distance,
        tail=tail,
        usable=size,
        reason=_unreliable(size, tail, distance),
        low=min(low, alpha),
        high=max(high, alpha),
    )


def interval_without_largest(eigenvalues: Floats, fit: PowerLawFit, largest: int) -> tuple[float, float]:
    """The interval of a fit, widened by that of the same spectrum without its so many largest eigenvalues."""
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64))
    rest = fit_power_law(values[: max(values.size - largest, 0)]) if largest else None
    return (fit.low, fit.high) if rest is None else (min(fit.low, rest.low), max(fit.high, rest.high))


def _interval(alphas: Floats, distances: Floats, counts: Floats, least: float) -> tuple[float, float]:
    """Over the candidates that fit as well as the best: the least and greatest exponent, with their own error."""
    tied = (distances <= least + TIED_WITHIN / np.sqrt(counts)) & ((counts >= LEAST_TAIL) | (distances <= least))
    exponents, errors = alphas[tied], NORMAL_90 * (alphas[tied] - 1) / np.sqrt(counts[tied])
    # No density that can be normalised falls off more slowly than 1/λ.
    return max(1.0, float((exponents - errors).min())), float((exponents + errors).max())


def _distinct(values: Floats) -> NDArray[np.intp]:
    """Where each distinct value of an ascending array begins: beyond the one before it by more than rounding."""
    starts = [0]
    # Nearly all neighbours differ: only those that do not are gone through one by one.
    close = np.flatnonzero(values[1:] <= values[:-1] * (1 + DISTINCT)) + 1
    apart = np.setdiff1d(np.arange(1, values.size), close, assume_unique=True)
    starts += apart.tolist()
    begin = 0
    ordered = np.asarray(starts)
    for place in close:
        begin = max(begin, int(ordered[np.searchsorted(ordered, place) - 1]))
        if values[place] > values[begin] * (1 + DISTINCT):
            begin = int(place)
            starts.append(begin)
    return np.sort(np.asarray(starts, dtype=np.intp))


def _ks_distances(logs: Floats, alphas: Floats) -> Floats:
    """Greatest |fitted − empirical| distribution over the tail of each candidate, slab by slab."""
    size = logs.size
    exponents = np.where(np.isfinite(alphas), 1 - alphas, 0.0)
    distances = np.empty(size - 1)
    ranks = np.arange(size, dtype=np.float64)
    for first in range(0, size - 1, _SLAB):
        rows = np.arange(first, min(first + _SLAB, size - 1))
        gap = logs[None, first:] - logs[rows, None]
        # Columns left of a candidate lie outside its tail; clipping them to its start gives them distance 0.
        np.maximum(gap, 0.0, out=gap)
        gap *= exponents[rows, None]
        np.exp(gap, out=gap)
        np.subtract(1.0, gap, out=gap)
        empirical = np.maximum(ranks[None, first:] - rows[:, None], 0.0) / (size - rows)[:, None]
        gap -= empirical
        np.abs(gap, out=gap)
        distances[rows] = gap.max(axis=1)
    return distances


def _unreliable(usable: int, tail: int, distance: float) -> str | None:
    if usable < LEAST_EIGENVALUES:
        return f"fewer than {LEAST_EIGENVALUES} usable eigenvalues"
    if tail < LEAST_TAIL:
        return f"fewer than {LEAST_TAIL} eigenvalues in the tail"
    if distance > LARGEST_KS:
        return f"the fit is poor (D above {LARGEST_KS})"
    return None
