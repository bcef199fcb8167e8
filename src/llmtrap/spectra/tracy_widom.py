"""The Tracy–Widom law of the largest eigenvalue of white noise: centre, scale and tail probability.

Sources: Johnstone 2001 (centre and scale for an N × M matrix of independent entries); Chiani 2014 (the law itself as
a shifted gamma distribution, accurate to about a percent in the upper tail, which is all that is used here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from scipy import special

SHAPE = 46.446
SCALE = 0.186054
SHIFT = 9.84801


@dataclass(frozen=True)
class EdgeLaw:
    """Centre μ and scale τ of the largest eigenvalue of RᵀR, for R of N × M independent entries of variance 1."""

    centre: float
    scale: float

    @classmethod
    def of(cls, rows: int, columns: int) -> EdgeLaw:
        """μ = (√(N−1) + √M)², τ = (√(N−1) + √M)(1/√(N−1) + 1/√M)^⅓ with N ≥ M (Johnstone 2001)."""
        n, m = max(rows, columns), min(rows, columns)
        left, right = math.sqrt(max(n - 1, 1)), math.sqrt(m)
        return cls(centre=(left + right) ** 2, scale=(left + right) * (1 / left + 1 / right) ** (1 / 3))

    def z(self, eigenvalue: float) -> float:
        """Standardise an eigenvalue of a matrix whose entries have variance 1."""
        return (eigenvalue - self.centre) / self.scale

    def eigenvalue(self, z: float) -> float:
        """Eigenvalue that stands at z."""
        return self.centre + z * self.scale


def survival(z: float) -> float:
    """P(TW₁ > z), by Chiani's shifted gamma."""
    x = (z + SHIFT) / SCALE
    return float(special.gammaincc(SHAPE, x)) if x > 0 else 1.0


@lru_cache(maxsize=16)
def quantile_of_survival(p: float) -> float:
    """Return z with P(TW₁ > z) = p, for p in (0, 1)."""
    return float(special.gammainccinv(SHAPE, p)) * SCALE - SHIFT


def density(z: float) -> float:
    """Density of TW₁ at z, by the same approximation; for drawing the band at the edge."""
    x = (z + SHIFT) / SCALE
    if x <= 0:
        return 0.0
    return math.exp((SHAPE - 1) * math.log(x) - x - math.lgamma(SHAPE)) / SCALE
