"""The numbers behind the page: a value a checkpoint, for each kind of matrix and for each matrix."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from llmtrap.report.document import Matrix
from llmtrap.report.facts import kind
from llmtrap.report.formatting import printable
from llmtrap.report.html.payload import LONGEST_NAME, short
from llmtrap.trajectory.document import Trajectory, matrices_at

# Matrices shown one by one: those with traps first. The JSON has them all.
MOST_MATRICES = 2000


def _alpha(matrix: Matrix) -> float | None:
    return matrix.alpha.value if matrix.alpha is not None and matrix.alpha.reliable else None


def _traps(matrix: Matrix) -> float | None:
    known = matrix.traps is not None and matrix.traps.method != "undecided"
    return matrix.traps.centred if known and matrix.traps is not None else None


def _norm(matrix: Matrix) -> float | None:
    return matrix.spectrum.spectral_norm if matrix.spectrum is not None else None


def _frobenius(matrix: Matrix) -> float | None:
    return matrix.spectrum.frobenius_norm if matrix.spectrum is not None else None


def _stable_rank(matrix: Matrix) -> float | None:
    return matrix.spectrum.stable_rank if matrix.spectrum is not None else None


def _strength(matrix: Matrix) -> float | None:
    found = [trap.strength for trap in (matrix.traps.found if matrix.traps is not None else ())]
    return max(found, default=None)


QUANTITIES: dict[str, Callable[[Matrix], float | None]] = {
    "alpha": _alpha, "traps": _traps, "strength": _strength, "norm": _norm, "frobenius": _frobenius,
    "rank": _stable_rank,
}  # fmt: skip


def payload(trajectory: Trajectory) -> dict[str, Any]:
    """Everything the page's script draws, as JSON types.

    Returns:
        `x`: a number a checkpoint, its step where every step is larger than the one before, else its place; `labels`;
        `points`: a list a quantity of the whole; `kinds` and `matrices`: names, and for each quantity a list of lists.
    """
    points = trajectory.points
    at = [matrices_at(trajectory, place) for place in range(len(points))]
    steps = [point.step for point in points]
    known = [step for step in steps if step is not None]
    rising = len(known) == len(steps) and all(a < b for a, b in pairwise(known))
    names = list(dict.fromkeys(name for there in at for name in there))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(kind(next(there[name] for there in at if name in there)), []).append(name)
    shown = _most_telling(trajectory, names)
    return {
        "x": known if rising else list(range(len(points))),
        "byStep": rising,
        "labels": [printable(point.label, LONGEST_NAME) for point in points],
        "points": {
            "traps": [point.summary.traps for point in points],
            "withTraps": [point.summary.with_traps for point in points],
            "newTraps": [None if point.new_traps is None else len(point.new_traps) for point in points],
            "alpha": [short(point.summary.alpha.median) for point in points],
            "measured": [point.measured for point in points],
            "unchanged": [point.unchanged for point in points],
        },
        "kinds": {
            "names": [printable(name, LONGEST_NAME) for name in groups],
            **{key: [_together(key, members, at) for members in groups.values()] for key in QUANTITIES},
        },
        "matrices": {
            "names": [printable(name, LONGEST_NAME) for name in shown],
            **{key: [_series(name, at, get) for name in shown] for key, get in QUANTITIES.items()},
        },
    }


def _series(name: str, at: Sequence[dict[str, Matrix]], get: Callable[[Matrix], float | None]) -> list[float | None]:
    return [short(get(there[name])) if name in there else None for there in at]


def _together(key: str, names: Sequence[str], at: Sequence[dict[str, Matrix]]) -> list[float | None]:
    """One number a checkpoint for all matrices of a kind: the sum of traps, the greatest strength, else the median."""
    combine: Callable[[list[float]], float] = statistics.median
    if key in ("traps", "strength"):
        combine = sum if key == "traps" else max
    found = []
    for there in at:
        values = [value for name in names if name in there and (value := QUANTITIES[key](there[name])) is not None]
        found.append(short(float(combine(values))) if values else None)
    return found


def _most_telling(trajectory: Trajectory, names: Sequence[str]) -> list[str]:
    """The matrices to show one by one, in the order of the document."""
    if len(names) <= MOST_MATRICES:
        return list(names)
    trapped = dict.fromkeys(trap.matrix for trap in trajectory.traps)
    chosen = set(list(dict.fromkeys((*trapped, *names)))[:MOST_MATRICES])
    return [name for name in names if name in chosen]
