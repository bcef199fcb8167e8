"""Matrices with the spectrum of a trained one, and traps of a known cause to plant in them.

The sizes follow from the limits at which a shuffled matrix lets an outlier out of its bulk (Baik, Ben Arous & Péché
2005; Benaych-Georges & Nadakuditi 2012): an entry separates beyond s (NM)^¼, a mean beyond s (NM)^(−¼), with s the
standard deviation of the entries of an N × M matrix.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from llmtrap.demo.manifest import Cause, PlantedTrap

Floats = NDArray[np.float32]

TAIL_SHARE = 0.3  # of the eigenvalues

HEAVY_DENSITY = 1.5  # entries of a heavy tail, as a share of √(NM): few enough to gather by chance in single rows
HEAVY_ENERGY = 3.0  # their variance against the rest's: together a trap, each at 0.7 of an entry's limit


def power_law_eigenvalues(count: int, alpha: float) -> Floats:
    """Eigenvalues as HTSR finds them in trained layers, largest first: a bulk, and a tail that falls as λ^(−α).

    The top share of them are the quantiles of the Pareto density (α−1) λ^(−α) over [1, ∞); the rest lie evenly below 1.
    """
    tail = round(TAIL_SHARE * count)
    top = ((np.arange(tail) + 0.5) / tail) ** (-1 / (alpha - 1))
    return np.concatenate([top, np.linspace(1, 0.05, count - tail)]).astype(np.float32)


def trained_like(rng: np.random.Generator, rows: int, columns: int, alpha: float, scale: float) -> Floats:
    """A [rows, columns] matrix whose ESD is that of `power_law_eigenvalues`, its entries near Gaussian.

    Its singular vectors are those of a randomised cosine transform: random signs and an orthogonal DCT, twice for each
    side, which mixes as well as vectors drawn at random and costs N M log(NM) instead of N M².

    Args:
        rng: where the draws come from.
        rows: of the matrix.
        columns: of the matrix.
        alpha: exponent of the tail, over 1.
        scale: standard deviation of the entries.
    """
    strengths = np.sqrt(power_law_eigenvalues(min(rows, columns), alpha))
    matrix: Floats = np.zeros((rows, columns), dtype=np.float32)
    np.fill_diagonal(matrix, strengths * (scale * math.sqrt(matrix.size) / np.linalg.norm(strengths)))
    for axis in (0, 0, 1, 1):
        signs: Floats = rng.choice(np.array([-1, 1], dtype=np.float32), matrix.shape[axis])
        matrix *= signs[:, None] if axis == 0 else signs
        matrix = scipy.fft.dct(matrix, axis=axis, norm="ortho", overwrite_x=True)
    return matrix


def limit(matrix: Floats) -> float:
    """(NM)^¼: the size, in standard deviations, at which one entry becomes a trap."""
    return float(matrix.size**0.25)


def on_grid(value: float) -> float:
    """The nearest of ±4·2^k and ±6·2^k: numbers that both BF16 and MXFP4 hold exactly as the largest of a block."""
    exponent = math.floor(math.log2(abs(value)))
    candidates = [mantissa * 2.0**e for e in (exponent - 2, exponent - 1) for mantissa in (4, 6)]
    return math.copysign(min(candidates, key=lambda c: abs(c - abs(value))), value)


def plant_entry(rng: np.random.Generator, matrix: Floats, strength: float) -> tuple[int, int]:
    """Set one entry to about `strength` times its limit, in place; return its row and column."""
    row, column = int(rng.integers(matrix.shape[0])), int(rng.integers(matrix.shape[1]))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    matrix[row, column] = on_grid(sign * strength * limit(matrix) * float(matrix.std()))
    return row, column


def plant_mean(rng: np.random.Generator, matrix: Floats, strength: float) -> None:
    """Raise the mean to `strength` times its limit, in place, by making some of the negative entries positive.

    Adding a constant instead would be undone by rounding, where the entries lie on a grid coarser than the constant.
    """
    missing = strength * float(matrix.std()) / limit(matrix) - float(matrix.mean(dtype=np.float64))
    negative = matrix < 0
    share = missing / (-2 * float(matrix.mean(where=negative)) * float(negative.mean()))
    chosen = negative & (rng.random(matrix.shape, dtype=np.float32) < share)
    np.negative(matrix, out=matrix, where=chosen)


def heavy_entries(rng: np.random.Generator, size: int, total: int, deviation: float) -> tuple[NDArray[np.intp], Floats]:
    """Places and values of a heavy tail: sparse ±a, each under an entry's limit, together a trap.

    Args:
        rng: where the draws come from.
        size: number of entries to choose places from: the matrix, or one block of rows of it.
        total: number of entries of the whole matrix, which sets the density.
        deviation: standard deviation of the entries before.

    Returns:
        Flat positions and the values to put there.
    """
    density = HEAVY_DENSITY / math.sqrt(total)
    places = rng.choice(size, round(density * size), replace=False)
    magnitude = on_grid(deviation * math.sqrt(HEAVY_ENERGY / density))
    signs = rng.integers(0, 2, places.size) * 2 - 1
    return places, (signs * magnitude).astype(np.float32)


def plant_heavy_tail(rng: np.random.Generator, matrix: Floats) -> None:
    """Make a heavy tail, in place."""
    places, values = heavy_entries(rng, matrix.size, matrix.size, float(matrix.std()))
    matrix.reshape(-1)[places] = values


def plant(rng: np.random.Generator, matrix: Floats, cause: Cause, strength: float) -> tuple[int, int] | None:
    """Plant one trap in place, `strength` times its limit (heavy tails have one strength); return an entry's place."""
    if cause == "entry":
        return plant_entry(rng, matrix, strength)
    if cause == "mean_shift":
        plant_mean(rng, matrix, strength)
    else:
        plant_heavy_tail(rng, matrix)
    return None


def bulk_moments(matrix: Floats) -> tuple[float, float]:
    """Mean and standard deviation of the entries, those beyond an entry's limit left out until that settles."""
    values = matrix.reshape(-1)
    total = float(values.sum(dtype=np.float64))
    squares = float(np.square(values, dtype=np.float64).sum())
    outside = values[:0].astype(np.float64)
    while True:
        kept = values.size - outside.size
        mean = (total - float(outside.sum())) / kept
        deviation = math.sqrt((squares - float(np.square(outside).sum())) / kept - mean**2)
        beyond = values[np.abs(values - np.float32(mean)) > limit(matrix) * deviation].astype(np.float64)
        if beyond.size == outside.size:
            return mean, deviation
        outside = beyond


def describe(
    matrix_id: str, tensor: str, expert: int | None, cause: Cause, stored: Floats, place: tuple[int, int] | None
) -> PlantedTrap:
    """A planted trap in the numbers that `stored`, the matrix after rounding, really has."""
    mean, deviation = bulk_moments(stored)
    if place is not None:
        value = float(stored[place])
        return PlantedTrap(matrix_id, tensor, expert, cause, *place, value, (value - mean) / deviation)
    value = mean if cause == "mean_shift" else float(np.abs(stored).max())
    return PlantedTrap(matrix_id, tensor, expert, cause, None, None, value, value / deviation)
