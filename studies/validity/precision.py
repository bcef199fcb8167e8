"""What float32 costs: α and z of the same matrices in the package's own precision and in float64 throughout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.esd import compute_esd
from llmtrap.spectra.shuffle import shuffled
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import gram_of
from studies.validity.work import generator

Floats = NDArray[np.float32]
KINDS = (
    "Gaussian",
    "power law, five decades",
    "condition number 10⁴",
    "half rank",
    "one entry of 200 s",
    "mean of 3 s",
)


def difference(kind: str, rows: int, columns: int, draws: int) -> dict[str, Any]:
    """Greatest differences over the draws, and the precision that was chosen."""
    backend, law = NumpyBackend(), EdgeLaw.of(rows, columns)
    alphas, edges, chosen = [], [], set()
    for k in range(draws):
        rng = generator("precision", kind, rows, columns, k)
        matrix = _matrix(kind, (rows, columns), rng)
        found = compute_esd(lambda m=matrix: [m], matrix.shape, backend)  # type: ignore[misc]
        exact = compute_esd(lambda m=matrix: [m], matrix.shape, backend, double=True)  # type: ignore[misc]
        chosen.add(found.precision)
        if found.fit is not None and exact.fit is not None:
            alphas.append(abs(found.fit.alpha / exact.fit.alpha - 1))
        standard = (shuffled(matrix, rng).reshape(matrix.shape) - matrix.mean()) / matrix.std()
        tops = []
        for width in ("float32", "float64"):
            gram, _ = gram_of(iter([standard]), columns, backend, width)
            tops.append(
                law.z(float(backend.top_eigenpairs(gram, 1, rng.standard_normal(columns), vectors=False)[0][0]))
            )
        edges.append(abs(tops[0] - tops[1]))
    return {
        "kind": kind, "shape": [rows, columns], "draws": draws, "precision": sorted(chosen),
        "alpha_relative": max(alphas, default=math.nan), "top_z": max(edges),
    }  # fmt: skip


def _matrix(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(shape)
    side = shape[1]
    values = {
        "power law, five decades": lambda: np.clip(rng.random(side) ** -1.0, 1, 300),
        "condition number 10⁴": lambda: np.geomspace(1e-4, 1, side),
        "half rank": lambda: np.concatenate([rng.uniform(1, 2, side // 2), np.zeros(side - side // 2)]),
    }
    if kind in values:
        left = np.linalg.qr(noise)[0]
        right = np.linalg.qr(rng.standard_normal((side, side)))[0]
        return np.asarray((left * values[kind]()) @ right, dtype=np.float32)
    if kind == "one entry of 200 s":
        noise[3, 4] = 200
    if kind == "mean of 3 s":
        noise += 3
    return noise.astype(np.float32)


def cells(quick: bool) -> list[dict[str, Any]]:
    """Sides beyond those that are always computed in float64."""
    return [
        {"kind": kind, "rows": n, "columns": m, "draws": 1 if quick else draws}
        for n, m, draws in ((600, 600, 4), (1600, 800, 2))
        for kind in KINDS
    ]
