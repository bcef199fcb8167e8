"""The empirical spectral density: eigenvalues of WᵀW, and the numbers read off them.

The Gram matrix of the shorter side, then a values-only symmetric eigensolver; never a singular value decomposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend
from llmtrap.spectra.measured import Histogram
from llmtrap.spectra.power_law import RELATIVE_FLOOR, PowerLawFit, fit_power_law

Floats = NDArray[np.floating]

# Up to this side float64 costs next to nothing, so small matrices always have it.
DOUBLE_UP_TO = 512
# Small eigenvalues of a float32 Gram matrix are off by about 10⁻⁸·λ₁ (measured, docs/definitions.md): a tail that
# begins above this fraction of λ₁ has an α right to 10⁻⁵. A square matrix has λ_min near λ₁/4M² whatever its tail, so
# the smallest eigenvalue says nothing about the fit.
TRUSTED_FROM = 1e-5
# Rounding turns half of the zero eigenvalues negative: more than this share suggests a rank only float64 can settle.
NEGATIVE_SHARE = 0.01
# Twice the error of the small eigenvalues of a float32 Gram matrix, relative to λ₁.
FLOAT32_DOUBT = 5e-8
HISTOGRAM_BINS = 64


@dataclass(frozen=True)
class Esd:
    """Eigenvalues of WᵀW, ascending, not divided by N, with the fit of their tail.

    `precision` is the float width of the Gram matrix and of the solver.
    """

    eigenvalues: NDArray[np.float64]
    fit: PowerLawFit | None
    precision: str

    @property
    def largest(self) -> float:
        """λ₁, the squared spectral norm."""
        return float(self.eigenvalues[-1])

    @property
    def total(self) -> float:
        """Σλ, the squared Frobenius norm."""
        return float(self.eigenvalues.sum())

    @property
    def hard_rank(self) -> int | None:
        """Eigenvalues above 10⁻⁷·λ₁, i.e. singular values above 3·10⁻⁴ of the largest.

        None where one lies so near that limit that float32 cannot tell its side.
        """
        relative = self.eigenvalues / self.largest if self.largest > 0 else self.eigenvalues
        if self.precision == "float32" and bool((np.abs(relative - RELATIVE_FLOOR) <= FLOAT32_DOUBT).any()):
            return None
        return int((relative > RELATIVE_FLOOR).sum())

    @property
    def rank_deficient(self) -> bool:
        """Whether an eigenvalue is zero to the accuracy of float64; claimed from float64 spectra alone."""
        if self.precision != "float64":
            return False
        rounding = self.eigenvalues.size * float(np.finfo(np.float64).eps)
        return bool(self.eigenvalues[0] <= rounding * self.largest)

    @property
    def entropy(self) -> float:
        """−Σ p ln p / ln M with p = λ/Σλ: 1 for a flat spectrum, 0 for rank one."""
        if self.eigenvalues.size < 2 or self.total <= 0:
            return 0.0
        p = self.eigenvalues[self.eigenvalues > 0] / self.total
        return max(0.0, float(-(p * np.log(p)).sum() / math.log(self.eigenvalues.size)))


def first_precision(shape: tuple[int, int], *, double: bool) -> str:
    """The float width in which a spectrum is computed first; `double` for float64 weights."""
    return "float64" if double or min(shape) <= DOUBLE_UP_TO else "float32"


def compute_esd(
    arrays: Callable[[], Iterable[Array]],
    shape: tuple[int, int],
    backend: Backend,
    *,
    scale: float = 1.0,
    double: bool = False,
    gram: Array | None = None,
) -> Esd:
    """Eigenvalues of the Gram matrix of the shorter side.

    Float width: float64 for a shorter side up to 512 and for float64 weights; else float32, and once more in float64
    where the fitted tail begins so low, or so many eigenvalues are near zero, that float32 could change the result.

    Args:
        arrays: gives the matrix top to bottom as the backend's arrays, as often as called; as one block if it has fewer
            rows than columns.
        shape: rows and columns.
        backend: where to compute.
        scale: a power of two that brings the entries near 1 where squares would leave float32.
        double: float64 at once.
        gram: the Gram matrix in `first_precision` where it is there already, unscaled; it may be destroyed.
    """
    precision = first_precision(shape, double=double)
    if gram is None or scale != 1.0:
        gram = _gram(arrays(), shape, backend, precision, scale)
    while True:
        eigenvalues = np.sort(backend.eigenvalues(gram)) / scale**2
        fit = fit_power_law(eigenvalues)
        if precision == "float64" or not _needs_double(eigenvalues, fit):
            # A Gram matrix has no negative eigenvalues; rounding makes some.
            return Esd(np.clip(eigenvalues, 0.0, None), fit, precision)
        precision = "float64"
        gram = None  # its memory is wanted for the next
        gram = _gram(arrays(), shape, backend, precision, scale)


def _gram(arrays: Iterable[Array], shape: tuple[int, int], backend: Backend, precision: str, scale: float) -> Array:
    gram = backend.gram(min(shape), precision)
    wide = shape[0] < shape[1]
    for array in arrays:
        gram = backend.add_gram(gram, array, transposed=wide, scale=scale)
    return gram


def _needs_double(eigenvalues: NDArray[np.float64], fit: PowerLawFit | None) -> bool:
    largest = float(eigenvalues[-1])
    if largest <= 0 or fit is None:
        return True
    negative = float((eigenvalues < 0).mean())
    return fit.xmin < TRUSTED_FROM * largest or negative > NEGATIVE_SHARE


def log_histogram(eigenvalues: NDArray[np.float64], bins: int = HISTOGRAM_BINS) -> Histogram | None:
    """Histogram of the eigenvalues above the floor in bins of equal logarithmic width; None where there are none."""
    if eigenvalues.size == 0 or not eigenvalues.max() > 0:
        return None
    largest = float(eigenvalues.max())
    kept = eigenvalues[eigenvalues > RELATIVE_FLOOR * largest]
    low, high = math.log10(float(kept.min())), math.log10(largest)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = (high - low) * 1e-9
    edges = np.linspace(low - margin, high + margin, bins + 1)
    counts, _ = np.histogram(np.log10(kept), bins=edges)
    return Histogram(edges=(10.0**edges).tolist(), counts=counts.tolist())
