"""Can the certificate be wrong: a search for a certified matrix whose shuffles show a trap.

What a shuffle can show depends on the entries' distribution alone, so the search runs over distributions: a bulk
(Gaussian, or ±1, which leaves the tail the most kurtosis) with up to four atoms, of which differential evolution sets
the distance, the share of the kurtosis, the skewness, and the mean; as many entries are put in them as the certificate
bears. The worst found is then shuffled many times more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution

from llmtrap.spectra.certificate import Bulk, bulk_of, certify
from llmtrap.spectra.moments import MomentPass
from llmtrap.spectra.traps import edge_z
from studies.validity.planting import allowed_kurtosis
from studies.validity.shuffles import entries_to_shuffle, search_named, shuffled_whole
from studies.validity.work import generator

Floats = NDArray[np.float32]
Parameters = NDArray[np.float64]

ATOMS = 4
# Distances of atoms from the mean: from 1.5 s on, up to this fraction of the entry limit (e < 0.25 is under a half).
NEAREST, FARTHEST = 1.5, 0.4995
LARGEST_MEAN = 0.4995


def entries_of(x: Parameters, shape: tuple[int, int], bulk: str, seed: int = 0) -> Floats | None:
    """The matrix of a point of the search, with as many entries in its atoms as the certificate bears.

    Args:
        x: for each atom its distance, its share of the kurtosis, and the fraction of it above the mean; then the mean
            over its limit; all in [0, 1].
        shape: rows and columns.
        bulk: `gaussian` or `signs`.
        seed: of the bulk's draw.

    Returns:
        The entries, or None where not even a matrix of few atoms is certified.
    """
    limit = float(shape[0] * shape[1]) ** 0.25
    distance = NEAREST * (FARTHEST * limit / NEAREST) ** x[:ATOMS]
    share = x[ATOMS : 2 * ATOMS] / max(float(x[ATOMS : 2 * ATOMS].sum()), 1e-9)
    above, mean = x[2 * ATOMS : 3 * ATOMS], (2 * float(x[3 * ATOMS]) - 1) * LARGEST_MEAN / limit
    # Entries in each atom for a unit of kurtosis.
    unit = share * (shape[0] * shape[1]) / distance**4
    low, high, best = 0.0, 2 * allowed_kurtosis(shape), None
    for _ in range(9):
        middle = (low + high) / 2
        matrix = _mixture(distance, np.floor(unit * middle).astype(int), above, mean, shape, bulk, seed)
        if matrix is not None and certified(matrix):
            low, best = middle, matrix
        else:
            high = middle
    return best


def _mixture(
    distance: Parameters,
    numbers: NDArray[np.int64],
    above: Parameters,
    mean: float,
    shape: tuple[int, int],
    bulk: str,
    seed: int,
) -> Floats | None:
    """Entries of variance 1: atoms at these distances, and a body of the bulk's kind that makes up the rest."""
    size = shape[0] * shape[1]
    if numbers.sum() > 0.5 * size:
        return None
    high = np.round(numbers * above).astype(int)
    atoms = mean + np.concatenate([np.repeat(distance, high), np.repeat(-distance, numbers - high)])
    left = size - atoms.size
    # The body carries what the atoms do to the mean, so that distances stay those asked for.
    centre = (mean * size - atoms.sum()) / left
    variance = (size * (1 + mean**2) - float((atoms**2).sum())) / left - centre**2
    if variance < 0.05:
        return None
    rng = generator("bulk", seed)
    body = rng.standard_normal(left) if bulk == "gaussian" else np.where(np.arange(left) % 2 == 0, 1.0, -1.0)
    body = (body - body.mean()) * math.sqrt(variance) / body.std() + centre
    return np.concatenate([atoms, body]).astype(np.float32).reshape(shape)


def certified(matrix: Floats) -> bool:
    """Whether the package certifies it."""
    return _bulk_and_certificate(matrix)[1]


def _bulk_and_certificate(matrix: Floats) -> tuple[Bulk, bool]:
    sums = MomentPass()
    sums.add(matrix)
    moments = sums.finish([matrix])
    bulk = bulk_of((matrix.shape[0], matrix.shape[1]), moments, lambda: [matrix])
    return bulk, certify((matrix.shape[0], matrix.shape[1]), moments, bulk).certified


def top_z(matrix: Floats, shuffles: int, name: str) -> NDArray[np.float64]:
    """Z of the largest eigenvalue of each shuffle, the mean in place, by the package's own measurement."""
    bulk, _ = _bulk_and_certificate(matrix)
    counts = shuffled_whole(entries_to_shuffle(matrix, bulk), bulk, search_named(name, shuffles))
    return np.array([count.top_z for count in counts])


def hardest(rows: int, columns: int, bulk: str, generations: int, population: int, final: int) -> dict[str, Any]:
    """Search for the certified distribution with the largest z, and shuffle the winner many times."""
    shape, trials = (rows, columns), 0
    best: tuple[float, Parameters] = (-math.inf, np.zeros(0))
    seen = -math.inf
    failures = 0

    def objective(x: Parameters) -> float:
        nonlocal trials, best, seen, failures
        matrix = entries_of(x, shape, bulk)
        if matrix is None:
            return 10.0
        trials += 1
        z = top_z(matrix, 5, f"search {trials}")
        seen = max(seen, float(z.max()))
        failures += int((z > edge_z("tracy-widom", shape)).sum())
        value = float(z.mean() + z.std())
        if value > best[0]:
            best = (value, x.copy())
        return -value

    differential_evolution(
        objective, [(0.0, 1.0)] * (3 * ATOMS + 1), maxiter=generations, popsize=population, polish=False,
        rng=generator("soundness", rows, columns, bulk), init="sobol", tol=0, atol=0,
    )  # fmt: skip
    matrix = entries_of(best[1], shape, bulk)
    assert matrix is not None  # noqa: S101
    z = top_z(matrix, final, "winner")
    values, counts = np.unique(np.round(np.abs(matrix[np.abs(matrix) > 3.5]), 3), return_counts=True)
    return {
        "shape": [rows, columns], "bulk": bulk, "matrices": trials, "shuffles": trials * 5 + final,
        "traps_in_search": failures, "largest_in_search": seen,
        "winner": {
            "kurtosis": float(((matrix - matrix.mean()) ** 4).mean() / matrix.var() ** 2),
            "atoms": dict(sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda a: -a[1])[:6]),
            "mean_z": float(z.mean()), "deviation_z": float(z.std()), "largest_z": float(z.max()),
            "shuffles": final, "traps": int((z > edge_z("tracy-widom", shape)).sum()),
            "quantiles": {str(q): float(np.quantile(z, q)) for q in (0.5, 0.9, 0.99)},
        },
    }  # fmt: skip


# Shape, generations, and shuffles of the winner.
SHAPES = (
    ((512, 512), 4, 400), ((256, 256), 12, 1000), ((512, 128), 15, 1000), ((128, 128), 30, 2000),
    ((64, 64), 40, 4000), ((4480, 64), 4, 100), ((8000, 128), 1, 40),
)  # fmt: skip


def cells(quick: bool) -> list[dict[str, Any]]:
    """Every shape with both kinds of bulk."""
    return [
        {
            "rows": shape[0], "columns": shape[1], "bulk": bulk,
            "generations": 1 if quick else generations, "population": 1, "final": 10 if quick else final,
        }
        for shape, generations, final in SHAPES
        if not quick or min(shape) <= 128
        for bulk in ("gaussian", "signs")
    ]  # fmt: skip
