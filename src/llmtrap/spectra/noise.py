"""What a random matrix of a shape gives, and whether a spectrum is one.

Even noise has a largest eigenvalue, a stable rank and an α, which varies between 2 and 50 from one draw to the next: an
α means something only beside those of noise. `noise.json` holds what Gaussian matrices give over a grid of sides and
aspect ratios, simulated by `python -m studies.noise`; between the grid's shapes it is interpolated.

Whether a spectrum *is* noise is asked of the whole of it, since α alone cannot tell: it must follow the
Marchenko–Pastur law of the entries' variance, and have no eigenvalue beyond the law's edge that its own shuffles do not
have. Eigenvalues of noise repel each other, so that they keep far closer to the law than independent draws would.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.marchenko_pastur import MarchenkoPastur
from llmtrap.spectra.measured import NoiseRange
from llmtrap.spectra.tracy_widom import EdgeLaw

Floats = NDArray[np.float64]

# Matrices with a smaller side have too few eigenvalues for any statement of this kind.
LEAST_SIDE = 50
# Entries of other light-tailed laws than the Gaussian lie a little farther from the law (docs/validity.md).
ALLOWANCE = 1.3


@dataclass(frozen=True)
class Noise:
    """What random matrices of one shape give; `distance` is their greatest from the law (the 99.9 % quantile)."""

    alpha: NoiseRange
    stable_rank: NoiseRange
    entropy: NoiseRange
    distance: float


@dataclass(frozen=True)
class NoiseComparison:
    """A spectrum beside noise of its shape.

    `distance` from the Marchenko–Pastur law, the `limit` up to which it is noise's, the eigenvalues beyond the edge
    (`spikes`) and how many of them a shuffle shows as well (`by_entries`).
    """

    noise: Noise
    distance: float
    limit: float
    spikes: int
    by_entries: int

    @property
    def explains(self) -> bool:
        """Whether noise gives such a spectrum, and with it such an α."""
        return self.distance <= self.limit and self.spikes <= self.by_entries


def noise_of(shape: tuple[int, int]) -> Noise | None:
    """What random matrices of a shape give; None under a smaller side of 50.

    Beyond the grid (sides over 2048, aspect ratios over 512) the scaled quantities are those of its border.
    """
    m, n = min(shape), max(shape)
    if m < LEAST_SIDE:
        return None
    table = _table()
    q = n / m
    alpha = table.at("alpha", m, q)
    rank = table.at("stable_rank", m, q)
    entropy = table.at("entropy", m, q)
    return Noise(
        alpha=_range(alpha.tolist()),
        stable_rank=_range((rank * rank_scale(m, n)).tolist()),
        # The greater the deficit, the less the entropy.
        entropy=_range(sorted((1 - entropy * deficit_scale(m, n)).tolist())),
        distance=float(table.distance(m)) / m,
    )


def _range(quantiles: Iterable[float]) -> NoiseRange:
    low, median, high = quantiles
    return NoiseRange(low=low, median=median, high=high)


def rank_scale(m: int, n: int) -> float:
    """The stable rank of noise in the limit of large matrices: M/(1 + √c)², with c = M/N."""
    return m / (1 + math.sqrt(m / n)) ** 2


def deficit_scale(m: int, n: int) -> float:
    """The order of 1 − entropy: c/ln M."""
    return m / n / math.log(m)


def compare_with_noise(
    eigenvalues: Floats, shape: tuple[int, int], variance: float, edge_z: float, by_entries: int
) -> NoiseComparison | None:
    """Hold a spectrum against noise of its shape; None for a small matrix or one without variance.

    Args:
        eigenvalues: of WᵀW.
        shape: rows and columns.
        variance: of the bulk of the entries.
        edge_z: where the edge stands, in Tracy–Widom units.
        by_entries: the most traps that a shuffle showed.
    """
    noise = noise_of(shape)
    if noise is None or not variance > 0:
        return None
    m, n = min(shape), max(shape)
    spikes = int((eigenvalues > EdgeLaw.of(n, m).eigenvalue(edge_z) * variance).sum())
    return NoiseComparison(
        noise=noise,
        distance=distance_from_law(eigenvalues, n, variance),
        # A perturbation of rank k moves the distribution function by k/M at most.
        limit=ALLOWANCE * noise.distance + min(by_entries, spikes) / m,
        spikes=spikes,
        by_entries=by_entries,
    )


def distance_from_law(eigenvalues: Floats, rows: int, variance: float) -> float:
    """Kolmogorov–Smirnov distance of M eigenvalues of WᵀW, for W of N rows, from the Marchenko–Pastur law."""
    m = eigenvalues.size
    model = MarchenkoPastur(variance, m / rows).cdf(np.sort(eigenvalues) / rows)
    ranks = np.arange(m)
    return float(max(np.max((ranks + 1) / m - model), np.max(model - ranks / m)))


class _Table:
    """The simulated grid: logarithms of scaled quantities, by side and aspect ratio."""

    def __init__(self, content: dict[str, list[object]]):
        self._sides = np.log(np.asarray(content["sides"], dtype=np.float64))
        self._aspects = np.log(np.asarray(content["aspects"], dtype=np.float64))
        self._cells = {
            name: np.log(np.asarray(content[name], dtype=np.float64)) for name in ("alpha", "stable_rank", "entropy")
        }
        self._distances = np.asarray(content["distance"], dtype=np.float64)

    def at(self, name: str, side: int, aspect: float) -> Floats:
        """The three quantiles of a quantity: linear in the logarithms of side and aspect ratio."""
        cells = self._cells[name]
        i, right = _between(self._sides, math.log(side))
        j, up = _between(self._aspects, math.log(aspect))
        below = (1 - up) * cells[i, j] + up * cells[i, j + 1]
        above = (1 - up) * cells[i + 1, j] + up * cells[i + 1, j + 1]
        return np.asarray(np.exp((1 - right) * below + right * above))

    def distance(self, side: int) -> float:
        """M times the greatest distance from the law; it grows slowly with M."""
        return float(np.interp(math.log(side), self._sides, self._distances))


def _between(grid: Floats, value: float) -> tuple[int, float]:
    """The interval of a grid in which a value lies, and how far along; values outside lie on its border."""
    place = int(np.clip(np.searchsorted(grid, value, side="right") - 1, 0, grid.size - 2))
    share = (value - grid[place]) / (grid[place + 1] - grid[place])
    return place, float(np.clip(share, 0.0, 1.0))


@lru_cache(maxsize=1)
def _table() -> _Table:
    return _Table(json.loads(files(__package__).joinpath("noise.json").read_text(encoding="utf-8")))
