"""How strong a cause must be to be found: detection and right attribution by the ratio to its limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse
from studies.validity.planting import KINDS, Floats, planted
from studies.validity.work import generator

RATIOS = (0.8, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0)
TAIL_RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Shape and matrices of each ratio.
SHAPES = (
    ((64, 64), 40), ((256, 64), 30), ((512, 128), 16), ((256, 256), 16), ((4480, 64), 8), ((512, 512), 6),
)  # fmt: skip


def detection(kind: str, rows: int, columns: int, ratio: float, draws: int) -> dict[str, Any]:
    """Share of matrices whose median count shows the cause, and where it is also named rightly."""
    found = named = certified = 0
    z = []
    for k in range(draws):
        rng = generator("power", kind, rows, columns, ratio, k)
        matrix = planted(kind, ratio, (rows, columns), rng)
        traps = _traps_of(matrix, f"{kind} {k}")
        certified += traps.method == "certified"
        if traps.counts:
            z.append(traps.counts[0].top_z)
        if traps.count < 1:
            continue
        found += 1
        causes = [trap.cause for trap in traps.found]
        if kind == "entry":
            place = np.unravel_index(int(np.argmax(np.abs(matrix))), matrix.shape)
            named += any((c.row, c.column) == (int(place[0]), int(place[1])) for c in causes)
        else:
            named += any(c.kind == kind for c in causes)
    return {
        "kind": kind, "shape": [rows, columns], "ratio": ratio, "draws": draws,
        "found": found, "named": named, "certified": certified,
        "median_z": float(np.median(z)) if z else None,
    }  # fmt: skip


def _traps_of(matrix: Floats, name: str) -> TrapAnalysis:
    """As a full audit finds them: certified, else measured."""
    for way in ("certify", "measure"):
        traps = analyse(matrix, AnalysisSettings(alpha=False, traps=way), matrix_id=name).traps
        assert traps is not None  # noqa: S101
        if traps.method == "certified":
            break
    return traps


def cells(quick: bool) -> list[dict[str, Any]]:
    """Every cause on every shape."""
    return [
        {"kind": kind, "rows": shape[0], "columns": shape[1], "ratio": ratio, "draws": 2 if quick else draws}
        for kind in KINDS
        for shape, draws in SHAPES
        if not quick or min(shape) <= 256
        for ratio in (TAIL_RATIOS if kind == "heavy_tail" else RATIOS)
    ]
