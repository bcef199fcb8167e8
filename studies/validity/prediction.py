"""Can a prediction be wrong: matrices that are only just predicted to have traps, shuffled many times.

The rest of the matrix is Gaussian, or the heaviest that the certificate bears (four atoms that share its kurtosis, on a
Gaussian body or one of ±1). One far entry, as many as a prediction allows, or a mean are then set to the smallest size
at which they are predicted: where a count is most likely to differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse
from llmtrap.spectra.certificate import entry_limit
from llmtrap.spectra.entries import HeldEntries
from llmtrap.spectra.prediction import most_far
from studies.validity.shuffles import entries_to_shuffle, search_named, shuffled_whole
from studies.validity.soundness import ATOMS, entries_of
from studies.validity.work import generator

Floats = NDArray[np.float32]

RESTS = ("gaussian", "heaviest on gaussian", "heaviest on signs")
WHAT = ("entry", "entries", "mean")
# The two shapes of a GPT-OSS expert are shuffled as often as there is time for.
SHAPES = (
    ((128, 128), 2000), ((512, 128), 1000), ((4480, 64), 200), ((256, 256), 1000), ((512, 512), 400),
    ((1536, 512), 200), ((2880, 2880), 12), ((5760, 2880), 8),
)  # fmt: skip


def shuffled_at_the_border(rows: int, columns: int, rest: str, what: str, shuffles: int) -> dict[str, Any]:
    """One matrix at the border of the prediction: what is predicted, and what shuffles drawn whole show."""
    shape = (rows, columns)
    plain = _rest(rest, shape)
    cell: dict[str, Any] = {"shape": [rows, columns], "rest": rest, "what": what, "shuffles": 0}
    if plain is None:
        return cell
    plant = _with_mean if what == "mean" else _with_entries(1 if what == "entry" else most_far(shape))
    ratio, matrix = _smallest(lambda size: plant(plain, size))
    if matrix is None:
        return cell
    traps = _certify(matrix)
    entries, search = entries_to_shuffle(matrix, traps.bulk), search_named(f"{rest} {what}", shuffles)
    counts = shuffled_whole(entries, traps.bulk, search)
    z = np.array([count.top_z for count in counts])
    fewer = [k for k, c in enumerate(counts) if c.count < traps.count or c.centred < traps.centred]
    return cell | {
        "ratio": ratio, "shuffles": shuffles, "predicted": traps.count,
        "fewer": len(fewer), "fewer_together": sum(_share_a_line(entries, search.generator(k)) for k in fewer),
        "more": sum(c.count > traps.count or c.centred > traps.centred for c in counts),
        "predicted_z": traps.counts[0].top_z, "mean_z": float(z.mean()), "deviation_z": float(z.std()),
        "least_z": float(z.min()),
    }  # fmt: skip


def _share_a_line(entries: HeldEntries, rng: np.random.Generator) -> bool:
    """Whether two far entries of a shuffle lie in one row or one column."""
    shuffle = np.concatenate([block.copy() for block in entries.shuffled_blocks(rng)])
    rows, columns = np.nonzero(np.abs(shuffle) >= 0.5 * entry_limit(*entries.shape))
    return len(set(rows.tolist())) < rows.size or len(set(columns.tolist())) < columns.size


def _rest(rest: str, shape: tuple[int, int]) -> Floats | None:
    if rest == "gaussian":
        matrix = generator("prediction", shape).standard_normal(shape, dtype=np.float32)
        return matrix - matrix.mean(dtype=np.float64).astype(np.float32)
    # Atoms all over the range, as many entries on one side as on the other, and no mean.
    point = np.concatenate([np.linspace(0.4, 1.0, ATOMS), np.full(ATOMS, 0.5), np.full(ATOMS, 0.5), [0.5]])
    return entries_of(point, shape, rest.removeprefix("heaviest on "))


def _with_entries(number: int) -> Callable[[Floats, float], Floats]:
    def plant(plain: Floats, ratio: float) -> Floats:
        matrix = plain.copy()
        size = np.float32(ratio * float(matrix.size) ** 0.25 * float(matrix.std()))
        # In the place of entries of the rest's usual size, half of them below zero.
        usual = np.argsort(np.abs(matrix), axis=None)[:number]
        matrix.reshape(-1)[usual] = size * np.where(np.arange(number) % 2 == 0, 1, -1)
        return matrix

    return plant


def _with_mean(plain: Floats, ratio: float) -> Floats:
    return plain + np.float32(ratio / float(plain.size) ** 0.25 * float(plain.std()))


def _smallest(made: Callable[[float], Floats]) -> tuple[float, Floats | None]:
    """The least size, in limits, at which the matrix is predicted; None where it never is."""
    low, high, found = 1.0, 16.0, None
    for _ in range(12):
        middle = (low * high) ** 0.5
        matrix = made(middle)
        if _certify(matrix).method == "predicted":
            high, found = middle, matrix
        else:
            low = middle
    return high, found


def _certify(matrix: Floats) -> TrapAnalysis:
    traps = analyse(matrix, AnalysisSettings(alpha=False, traps="certify")).traps
    assert traps is not None  # noqa: S101
    return traps


def cells(quick: bool) -> list[dict[str, Any]]:
    """Every shape with every rest and everything planted."""
    return [
        {"rows": n, "columns": m, "rest": rest, "what": what, "shuffles": max(2, shuffles // 50) if quick else shuffles}
        for (n, m), shuffles in SHAPES
        if not quick or m <= 512
        for rest in RESTS
        for what in WHAT
        if what != "entries" or most_far((n, m)) > 1
    ]
