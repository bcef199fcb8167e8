"""The Marchenko–Pastur law: where the eigenvalues of a matrix of independent entries lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MarchenkoPastur:
    """Law of the eigenvalues of RᵀR / N for R of N × M entries of variance s², with c = M/N ≤ 1."""

    variance: float
    aspect: float

    @property
    def lower(self) -> float:
        """λ₋ = s²(1 − √c)²."""
        return float(self.variance * (1 - math.sqrt(self.aspect)) ** 2)

    @property
    def upper(self) -> float:
        """λ₊ = s²(1 + √c)²."""
        return float(self.variance * (1 + math.sqrt(self.aspect)) ** 2)

    def density(self, x: Floats) -> Floats:
        """√((λ₊ − x)(x − λ₋)) / (2π c s² x) inside the bulk, 0 outside."""
        inside = np.clip((self.upper - x) * (x - self.lower), 0, None)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.sqrt(inside) / (2 * math.pi * self.aspect * self.variance * x)
        return np.where(inside > 0, value, 0.0)

    def cdf(self, x: Floats) -> Floats:
        """The distribution function, in closed form (the density's elementary integral)."""
        c = self.aspect
        t = np.clip(np.asarray(x, dtype=np.float64) / self.variance, 0, None)
        low, high = (1 - math.sqrt(c)) ** 2, (1 + math.sqrt(c)) ** 2
        inside = np.clip(t, low, high)
        root = np.sqrt(np.clip((high - inside) * (inside - low), 0, None))
        # With x = 1 + c − 2√c·cos φ the integral splits into a root and two angles.
        angle = np.arccos(np.clip((1 + c - inside) / (2 * math.sqrt(c)), -1, 1))
        if c < 1:
            tilt = 2 * np.arctan2(math.sqrt(high) * np.sin(angle / 2), math.sqrt(low) * np.cos(angle / 2))
        else:
            tilt = np.where(angle > 0, math.pi, 0.0)
        value = (root + (1 + c) * angle - (1 - c) * tilt) / (2 * math.pi * c)
        return np.clip(np.where(t <= low, 0.0, np.where(t >= high, 1.0, value)), 0.0, 1.0)


@dataclass(frozen=True)
class BulkFit:
    """Kolmogorov–Smirnov distance of a spectrum's bulk from the law, and its p-value.

    Eigenvalues repel each other, so a true Marchenko–Pastur spectrum lies closer to its law than independent draws
    would: the p-value is conservative (near 1 for a clean matrix), as in table 4 of arXiv 2602.02859.
    """

    ks: float
    p_value: float


def compare_with_law(eigenvalues: Floats, law: MarchenkoPastur) -> BulkFit:
    """Compare eigenvalues of RᵀR / N (outliers already removed) with the law."""
    if eigenvalues.size == 0:
        return BulkFit(ks=1.0, p_value=0.0)
    values = np.sort(eigenvalues)
    n = values.size
    model = law.cdf(values)
    above = np.max(np.arange(1, n + 1) / n - model)
    below = np.max(model - np.arange(n) / n)
    distance = float(max(above, below))
    # Importing SciPy's distributions takes half a second, which an audit without traps need not spend in each worker.
    stats = import_module("scipy.stats")
    return BulkFit(ks=distance, p_value=float(stats.kstwo.sf(distance, n)))
