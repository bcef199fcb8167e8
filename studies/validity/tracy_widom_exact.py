"""The Tracy–Widom law itself, to hold the approximation in the package against."""

from __future__ import annotations

import numpy as np
from scipy import special


def survival(z: float, nodes: int = 60, reach: float = 16.0) -> float:
    """P(TW₁ > z) from the Fredholm determinant of ½Ai((x + y)/2 + z) on the half line (Ferrari and Spohn 2005).

    Gauss–Legendre quadrature (Bornemann 2010), good to 10⁻¹³.
    """
    x, weights = np.polynomial.legendre.leggauss(nodes)
    x, roots = (x + 1) * reach / 2, np.sqrt(weights * reach / 2)
    kernel = special.airy(z + (x[:, None] + x[None, :]) / 2)[0] / 2
    return float(1 - np.linalg.det(np.eye(nodes) - roots[:, None] * kernel * roots[None, :]))
