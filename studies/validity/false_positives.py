"""How often noise is called a trap: null matrices of many shapes and entry distributions against Tracy–Widom."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.certificate import bulk_of, certify
from llmtrap.spectra.entries import standardise
from llmtrap.spectra.moments import MomentPass
from llmtrap.spectra.shuffle import shuffled
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import edge_z, gram_of
from studies.validity.laws import LAWS, STRUCTURED
from studies.validity.work import generator

Floats = NDArray[np.float32]
QUANTILES = (0.5, 0.9, 0.99, 0.999)


def null_tail(law: str, rows: int, columns: int, draws: int) -> dict[str, Any]:
    """Draw matrices and record z of the largest eigenvalue of each shuffle, and what the certificate says.

    Where entries are independent and alike, the matrix is its own shuffle.
    """
    rng = generator("null", law, rows, columns)
    draw, backend = LAWS[law], NumpyBackend()
    start = rng.standard_normal(columns)
    edge = edge_z("tracy-widom", (rows, columns))
    z, certified = np.empty(draws), np.empty(draws, dtype=bool)
    for k in range(draws):
        matrix = draw(rng, (rows, columns))
        z[k], certified[k] = _top_z(matrix, law in STRUCTURED, rng, backend, start)
    return {
        "law": law,
        "shape": [rows, columns],
        "draws": draws,
        "traps": int((z > edge).sum()),
        "certified": int(certified.sum()),
        "certified_traps": int((certified & (z > edge)).sum()),
        "quantiles": {str(q): float(np.quantile(z, q)) for q in QUANTILES if draws * (1 - q) >= 5},
        "largest": float(z.max()),
        "largest_certified": float(z[certified].max()) if certified.any() else None,
        "beyond": {str(level): int((z > level).sum()) for level in (0.45, 0.98, 2.02, 3.27, 4.0)},
    }


def _top_z(
    matrix: Floats, mix: bool, rng: np.random.Generator, backend: NumpyBackend, start: NDArray[np.float64]
) -> tuple[float, bool]:
    shape = matrix.shape
    sums = MomentPass()
    sums.add(matrix)
    moments = sums.finish([matrix])
    bulk = bulk_of(shape, moments, lambda: [matrix])
    certificate = certify(shape, moments, bulk)
    if mix:
        matrix = np.asarray(shuffled(matrix, rng).reshape(shape), dtype=np.float32)
    gram, _ = gram_of(iter([standardise(matrix, bulk)]), shape[1], backend)
    values, _ = backend.top_eigenpairs(gram, 1, start, vectors=False)
    return EdgeLaw.of(*shape).z(float(values[0])), certificate.certified


# Shape, and draws of it at full size.
SHAPES = (
    ((32, 32), 5000), ((64, 64), 3000), ((640, 32), 300), ((2240, 32), 60), ((256, 64), 200), ((4480, 64), 16),
    ((128, 128), 150), ((512, 128), 40), ((256, 256), 24), ((512, 512), 6), ((2048, 512), 2), ((1440, 1440), 1),
    ((2880, 2880), 1),
)  # fmt: skip


def cells(quick: bool) -> list[dict[str, Any]]:
    """Every law on every shape; the costly ones last."""
    return [
        {"law": law, "rows": shape[0], "columns": shape[1], "draws": max(1, draws // 50) if quick else draws}
        for shape, draws in SHAPES
        if not quick or shape[1] <= 512
        for law in LAWS
    ]
