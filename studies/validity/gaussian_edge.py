"""The false-positive rate for Gaussian entries, measured at 10⁻⁶ itself: millions of exact draws of the edge alone.

A Gaussian matrix has the singular values of a bidiagonal one with independent chi-distributed entries (Dumitriu and
Edelman 2002), of which the first rows, about 12·M^⅓, decide the largest (Edelman and Persson 2005). Whether it passes
a threshold is the sign of a Sturm sequence: a few microseconds a draw, whatever the matrix's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import edge_z
from studies.validity.work import generator

Floats = NDArray[np.float64]
LEVELS = (2.0, 3.0, 4.0, 5.0)
BATCH = 20_000


def edge_tail(rows: int, columns: int, draws: int) -> dict[str, Any]:
    """Count the draws whose largest shuffled eigenvalue lies beyond some z, the rule's edge among them.

    As in an audit, s² is the matrix's own: the trace over the number of entries.
    """
    n, m = max(rows, columns), min(rows, columns)
    rng = generator("gaussian edge", n, m)
    law = EdgeLaw.of(n, m)
    levels = (*LEVELS, edge_z("tracy-widom", (n, m)))
    counts = dict.fromkeys(levels, 0)
    for first in range(0, draws, BATCH):
        diagonal, coupling, variance = edge_of_gaussian(n, m, min(BATCH, draws - first), rng)
        for z in levels:
            above = exceeds(diagonal, coupling, law.eigenvalue(z) * variance)
            counts[z] += int(above.sum())
            diagonal, coupling, variance = diagonal[above], coupling[above], variance[above]
    beyond = {f"{z:.4g}": counts[z] for z in levels}
    return {"shape": [n, m], "draws": draws, "beyond": beyond, "traps": counts[levels[-1]]}


def edge_of_gaussian(n: int, m: int, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Leading block of the tridiagonal BBᵀ of each draw (diagonal, squared off-diagonal), and s² of the matrix."""
    depth = min(m, max(30, int(12 * m ** (1 / 3))))
    steps = np.arange(depth)
    on = 2 * rng.standard_gamma((n - steps) / 2, (draws, depth))
    below = 2 * rng.standard_gamma((m - 1 - steps[:-1]) / 2, (draws, depth - 1))
    freedom = n * m - int((n - steps).sum()) - int((m - 1 - steps[:-1]).sum())
    rest = 2 * rng.standard_gamma(freedom / 2, draws) if freedom else np.zeros(draws)
    variance = (on.sum(axis=1) + below.sum(axis=1) + rest) / (n * m)
    diagonal = on.copy()
    diagonal[:, 1:] += below
    return diagonal, on[:, :-1] * below, variance


def exceeds(diagonal: Floats, coupling: Floats, threshold: Floats) -> NDArray[np.bool_]:
    """Whether the largest eigenvalue of each tridiagonal matrix lies above its threshold (Sturm)."""
    pivot = diagonal[:, 0] - threshold
    above = pivot > 0
    for k in range(1, diagonal.shape[1]):
        pivot = diagonal[:, k] - threshold - coupling[:, k - 1] / pivot
        above |= pivot > 0
    return above


def cells(quick: bool) -> list[dict[str, Any]]:
    """Shapes from square to 70:1 and draws of each."""
    shapes = [(32, 32), (64, 64), (128, 128), (512, 512), (1024, 1024), (2880, 2880), (5760, 2880),
              (128, 64), (512, 128), (4096, 1024), (640, 32), (4480, 64), (70_000, 1000)]  # fmt: skip
    return [{"rows": n, "columns": m, "draws": 20_000 if quick else 1_000_000} for n, m in shapes]
