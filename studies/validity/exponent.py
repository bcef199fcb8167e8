"""How exact α is: planted exponents, the coverage of sigma, and what size and aspect ratio do to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.power_law import fit_power_law
from studies.validity.work import generator

Floats = NDArray[np.float64]
EXPONENTS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
SIZES = ((50, 200), (100, 200), (300, 100), (1000, 100))


def accuracy(case: str, draws: int, **what: Any) -> dict[str, Any]:
    """One cell: `tail` and `body` fit drawn eigenvalues, `noise` and `entries` the spectra of drawn matrices."""
    return {"tail": _drawn, "body": _drawn, "noise": _matrices, "entries": _matrices}[case](case, draws, **what)


def _drawn(case: str, draws: int, alpha: float, size: int) -> dict[str, Any]:
    """Eigenvalues of density ~ λ^(−α) from 1 on; `body` puts as many more under 1, which the fit must leave out."""
    rng = generator("exponent", case, alpha, size)
    fits = []
    for _ in range(draws):
        values = rng.random(size) ** (-1 / (alpha - 1))
        if case == "body":
            values = np.concatenate([values, rng.beta(3, 1.2, size)])
        fit = fit_power_law(values)
        if fit is not None:
            fits.append(fit)
    found = np.array([f.alpha for f in fits])
    off = np.abs(found - alpha) / np.array([f.sigma for f in fits])
    return {
        "case": case, "alpha": alpha, "size": size, "draws": draws, "mean": float(found.mean()),
        "deviation": float(found.std()), "bias": float(found.mean() - alpha),
        "median_sigma": float(np.median([f.sigma for f in fits])),
        "within_one_sigma": float((off < 1).mean()), "within_two_sigma": float((off < 2).mean()),
        "interval_covers": float(np.mean([f.low <= alpha <= f.high for f in fits])),
        "interval_width": float(np.median([(f.high - f.low) / f.alpha for f in fits])),
        "reliable": float(np.mean([f.reliable for f in fits])),
        "tail_share": float(np.mean([f.tail / f.usable for f in fits])),
    }  # fmt: skip


def _matrices(case: str, draws: int, columns: int, q: float, mu: float | None = None) -> dict[str, Any]:
    """α of matrices without structure: Gaussian (`noise`), or with entries of tail |w|^(−1−μ) (`entries`).

    The largest eigenvalues of the latter follow the squares of the largest entries, of density λ^(−1−μ/2).
    """
    rng = generator("exponent", case, columns, q, mu)
    found, reliable = [], []
    for _ in range(draws):
        shape = (round(q * columns), columns)
        matrix = rng.standard_normal(shape) if mu is None else rng.standard_t(mu, shape)
        esd = analyse(matrix.astype(np.float32), AnalysisSettings(traps="certify")).esd
        assert esd is not None  # noqa: S101
        assert esd.fit is not None  # noqa: S101
        found.append(esd.fit.alpha)
        reliable.append(esd.fit.reliable)
    return {
        "case": case, "columns": columns, "q": q, "mu": mu, "expected": None if mu is None else 1 + mu / 2,
        "draws": draws, "mean": float(np.mean(found)), "deviation": float(np.std(found)),
        "reliable": float(np.mean(reliable)),
    }  # fmt: skip


def cells(quick: bool) -> list[dict[str, Any]]:
    """Drawn eigenvalues first, then matrices."""
    drawn = [
        {"case": case, "alpha": alpha, "size": size, "draws": 5 if quick else draws}
        for case in ("tail", "body")
        for size, draws in SIZES
        for alpha in EXPONENTS
    ]
    matrices = [
        {"case": case, "columns": columns, "q": q, "mu": mu, "draws": 2 if quick else draws}
        for columns, draws in ((64, 60), (200, 20), (400, 6))
        for q in (1.0, 2.0, 4.0, 16.0)
        for case, mu in (("noise", None), ("entries", 1.5), ("entries", 2.5), ("entries", 3.5))
    ]
    return drawn + matrices
