"""Gaussian matrices with something planted at a known multiple of the limit at which it separates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
KINDS = ("entry", "mean_shift", "heavy_tail")


def planted(kind: str, ratio: float, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Plant one cause.

    `ratio` is, for an entry, |w − m| over s(NM)^¼; for the mean, |m| over s(NM)^(−¼); for a tail, the same as for an
    entry, of as many entries as hold a fifth of all variance: under 1, none of them separates alone.
    """
    matrix = rng.standard_normal(shape, dtype=np.float32)
    limit = float(shape[0] * shape[1]) ** 0.25
    if kind == "entry":
        matrix[rng.integers(shape[0]), rng.integers(shape[1])] = ratio * limit
    elif kind == "mean_shift":
        matrix += np.float32(ratio / limit - matrix.mean())
    else:
        # A quarter of the Gaussian entries' variance on top, in units of the deviation of all.
        size = ratio * limit * math.sqrt(1.25)
        places = rng.choice(matrix.size, round(0.25 / size**2 * matrix.size), replace=False)
        matrix.reshape(-1)[places] = size * rng.choice(np.array([-1, 1], dtype=np.float32), places.size)
    return matrix


def allowed_kurtosis(shape: tuple[int, int]) -> float:
    """The most kurtosis that the certificate lets through (docs/definitions.md, section 4)."""
    n, m = max(shape), min(shape)
    return min(1.25 * float(n * m) ** (1 / 6), 1 + 0.3 * m / (2 * math.log(m)))
