"""The five measures by which matrices of one role are held against each other, and against published models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from llmtrap.report.document import Matrix

Measure = Literal["alpha", "spectral_norm", "stable_rank", "max_sigmas", "kurtosis"]


@dataclass(frozen=True)
class Kind:
    """One measure.

    Attributes:
        label: the measure, as tables and sentences call it.
        of: the value to compare, None where the matrix has none; logarithms are decimal.
        shown: turns a compared value back into the one people know.
        grain: the least difference that means anything; a spread under it counts as so much.
        beyond: how far over the greatest of published models a value is rare; None where that says little.
        apart: the same for how far a matrix departs from its peers, up.
        below: the same, down.
    """

    label: str
    of: Callable[[Matrix], float | None]
    shown: Callable[[float], float]
    grain: float
    beyond: float | None = None
    apart: float | None = None
    below: float | None = None


def _same(value: float) -> float:
    return value


def _power(value: float) -> float:
    return float(10.0**value)


def _alpha(matrix: Matrix) -> float | None:
    fit = matrix.alpha
    return fit.value if fit is not None and fit.reliable else None


def _spectral_norm(matrix: Matrix) -> float | None:
    """log₁₀ of σ₁."""
    norm = matrix.spectrum.spectral_norm if matrix.spectrum is not None else 0.0
    return math.log10(norm) if norm > 0 else None


def _stable_rank(matrix: Matrix) -> float | None:
    """log₁₀ of the stable rank over that of a random matrix of the shape, NM / (√N + √M)²: 0 is what chance gives."""
    if matrix.spectrum is None or matrix.spectrum.stable_rank <= 0:
        return None
    rows, columns = matrix.shape
    by_chance = rows * columns / (math.sqrt(rows) + math.sqrt(columns)) ** 2
    return math.log10(matrix.spectrum.stable_rank / by_chance)


def _max_sigmas(matrix: Matrix) -> float | None:
    """log₁₀ of max |w − m| / s."""
    value = matrix.traps.max_sigmas if matrix.traps is not None else None
    return math.log10(value) if value is not None and value > 0 else None


def _kurtosis(matrix: Matrix) -> float | None:
    """log₁₀ of the kurtosis of the entries (3 is Gaussian)."""
    value = matrix.traps.kurtosis if matrix.traps is not None else None
    return math.log10(value) if value is not None and value > 0 else None


MEASURES: Final[dict[Measure, Kind]] = {
    "alpha": Kind("α", _alpha, _same, 0.2),
    "spectral_norm": Kind("σ₁", _spectral_norm, _power, 0.03, apart=0.45, below=0.45),
    "stable_rank": Kind("stable rank over a random matrix's", _stable_rank, _power, 0.03),
    "max_sigmas": Kind("largest entry over the standard deviation", _max_sigmas, _power, 0.05, 0.45, 0.3),
    "kurtosis": Kind("kurtosis", _kurtosis, _power, 0.05, 0.9, 0.5),
}
"""The limits are those at which no published model, left out of the reference in turn, is called unusual (studies of
`studies/reference`): α, the stable rank and a small value go too far in healthy models to be held against one."""
