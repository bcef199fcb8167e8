"""Large entries that lie in one row or column across layers: an outlier channel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llmtrap.report.document import Channel, Matrix

FEWEST_LAYERS: Final = 3
"""Layers in which one channel must have a large entry: two of a few hundred entries meet by chance."""


@dataclass(frozen=True)
class Entry:
    """One large entry that makes a trap."""

    matrix: Matrix
    row: int
    column: int
    value: float
    sigmas: float

    @property
    def share(self) -> float:
        """Its share of ‖W‖²: the effect size."""
        norm = self.matrix.spectrum.frobenius_norm if self.matrix.spectrum is not None else 0.0
        return min(1.0, self.value**2 / norm**2) if norm > 0 else 0.0

    @property
    def place(self) -> str:
        """`layers.1.mlp.down [507, 1229]`."""
        return f"{self.matrix.id} [{self.row}, {self.column}]"


def large_entries(matrices: Sequence[Matrix]) -> list[Entry]:
    """The entries that make a trap in matrices whose count is trusted, the farthest first."""
    found = [
        Entry(matrix, cause.row, cause.column, cause.value, abs(cause.sigmas))
        for matrix in matrices
        if matrix.traps is not None and matrix.traps.reliable
        for cause in (trap.cause for trap in matrix.traps.found)
        if cause.kind == "entry" and cause.row is not None and cause.column is not None
        if cause.value is not None and cause.sigmas is not None
    ]
    return sorted(found, key=lambda entry: -entry.sigmas)


def channels(entries: Sequence[Entry]) -> tuple[list[tuple[Channel, list[Entry]]], list[Entry]]:
    """Group entries by the row or the column that they share over three layers or more, the largest group first.

    Rows of matrices with as many rows are one axis, columns likewise. An entry is in one group at most.

    Returns:
        The groups, and the entries that are in none.
    """
    left = list(entries)
    groups: list[tuple[Channel, list[Entry]]] = []
    while True:
        best = max(_candidates(left), key=lambda group: len(group[0].layers), default=None)
        if best is None:
            return groups, left
        groups.append(best)
        taken = set(map(id, best[1]))
        left = [entry for entry in left if id(entry) not in taken]


def _candidates(entries: Sequence[Entry]) -> list[tuple[Channel, list[Entry]]]:
    lines: dict[tuple[Literal["row", "column"], int, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.matrix.layer is not None:
            lines["row", entry.matrix.shape[0], entry.row].append(entry)
            lines["column", entry.matrix.shape[1], entry.column].append(entry)
    found = []
    for (axis, _, index), members in lines.items():
        layers = sorted({entry.matrix.layer for entry in members if entry.matrix.layer is not None})
        if len(layers) >= FEWEST_LAYERS:
            found.append((Channel(axis=axis, index=index, layers=tuple(layers)), members))
    return found
