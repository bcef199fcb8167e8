"""Spectra of Gaussian matrices, by a model that costs M² instead of NM²."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

from llmtrap.spectra.noise import deficit_scale, distance_from_law, rank_scale
from llmtrap.spectra.power_law import fit_power_law

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.5, 0.95)


def gaussian_spectrum(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """Eigenvalues of WᵀW, ascending, for W of N × M independent standard normal entries, N ≥ M.

    W has the singular values of a bidiagonal matrix with independent chi-distributed entries (Dumitriu and Edelman
    2002): N, N−1, … degrees of freedom on the diagonal, M−1, …, 1 beside it.
    """
    diagonal = np.sqrt(rng.chisquare(rows - np.arange(columns)))
    beside = np.sqrt(rng.chisquare(columns - 1 - np.arange(columns - 1)))
    squares = diagonal**2
    squares[1:] += beside**2
    return np.clip(eigvalsh_tridiagonal(squares, diagonal[:-1] * beside), 0.0, None)


def measured(rows: int, columns: int, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draw spectra of one shape: α, the scaled stable rank and deficit of entropy, and M times the distance."""
    alphas, ranks, deficits, distances = [], [], [], []
    for _ in range(draws):
        values = gaussian_spectrum(rows, columns, rng)
        total = float(values.sum())
        fit = fit_power_law(values)
        if fit is not None:
            alphas.append(fit.alpha)
        ranks.append(total / float(values[-1]) / rank_scale(columns, rows))
        shares = values[values > 0] / total
        entropy = -float((shares * np.log(shares)).sum()) / np.log(columns)
        deficits.append((1 - entropy) / deficit_scale(columns, rows))
        distances.append(columns * distance_from_law(values, rows, total / (rows * columns)))
    return {
        "alpha": _quantiles(alphas),
        "stable_rank": _quantiles(ranks),
        "entropy": _quantiles(deficits),
        "distances": distances,
    }


def _quantiles(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in np.quantile(values, QUANTILES)]
