"""How much a count depends on the draw of the shuffle, near the edge and away from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse
from studies.validity.planting import KINDS, Floats, planted
from studies.validity.shuffles import entries_to_shuffle, search_named, shuffled_whole
from studies.validity.work import generator

SHUFFLES = 100


def counts_over_shuffles(kind: str, rows: int, columns: int, ratio: float, shuffles: int) -> dict[str, Any]:
    """One matrix, many shuffles: the law of its count, and how often a median of five differs from that of all."""
    matrix = planted(kind, ratio, (rows, columns), generator("spread", kind, rows, columns, ratio))
    settings = AnalysisSettings(alpha=False, traps="measure", shuffles=shuffles)
    traps = analyse(matrix, settings, matrix_id="spread").traps
    assert traps is not None  # noqa: S101
    counts = np.array([c.count for c in traps.counts])
    fives = counts[: len(counts) // 5 * 5].reshape(-1, 5)
    medians = np.median(fives, axis=1) if len(fives) else np.zeros(0)
    return {
        "kind": kind, "shape": [rows, columns], "ratio": ratio, "shuffles": len(counts),
        "counts": _law(counts), "drawn_whole": _law(_drawn_whole(matrix, traps, shuffles)),
        "z": [float(q) for q in np.quantile([c.top_z for c in traps.counts], (0.05, 0.5, 0.95))],
        "medians_of_five_off": float((medians != np.median(counts)).mean()) if len(fives) else None,
    }  # fmt: skip


def _law(counts: NDArray[np.int64]) -> dict[str, int]:
    return {str(value): int((counts == value).sum()) for value in np.unique(counts)}


def _drawn_whole(matrix: Floats, traps: TrapAnalysis, shuffles: int) -> NDArray[np.int64]:
    """Counts of other shuffles, none of them made of another."""
    search = search_named("drawn whole", shuffles)
    return np.array(
        [count.count for count in shuffled_whole(entries_to_shuffle(matrix, traps.bulk), traps.bulk, search)]
    )


def cells(quick: bool) -> list[dict[str, Any]]:
    """Ratios about those where detection sets in."""
    return [
        {"kind": kind, "rows": n, "columns": m, "ratio": ratio, "shuffles": 10 if quick else SHUFFLES}
        for n, m in ((128, 128), (512, 128), (300, 300))
        for kind in KINDS
        for ratio in ((0.5, 0.7, 0.9) if kind == "heavy_tail" else (1.1, 1.2, 1.35, 1.5, 2.0))
    ]
