"""Each trap through a run: where it first appears, how it grows, and whether it is gone at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmtrap.report.document import Matrix
from llmtrap.spectra.measured import CauseKind, Trap
from llmtrap.trajectory.document import MeasuredMatrix, Point, TrapAt, TrapHistory

Address = tuple[CauseKind, int | None, int | None]


def trap_histories(points: Sequence[Point], measured: Iterable[MeasuredMatrix]) -> tuple[TrapHistory, ...]:
    """Follow every trap; the earliest first, and of one point the strongest.

    Args:
        points: the checkpoints in order.
        measured: the matrices in the order in which they were measured.
    """
    by_matrix: dict[str, list[MeasuredMatrix]] = {}
    for item in measured:
        by_matrix.setdefault(item.matrix.id, []).append(item)
    found = [history for name, items in by_matrix.items() for history in _of_matrix(name, items, points)]
    return tuple(sorted(found, key=lambda it: (it.first, -it.at[-1].strength, it.matrix)))


def strongest_by_address(matrix: Matrix) -> dict[Address, Trap]:
    """The traps of a matrix by their cause: entries by their place, others by their kind, of which the strongest."""
    found: dict[Address, Trap] = {}
    for trap in matrix.traps.found if matrix.traps is not None else ():
        address = (trap.cause.kind, trap.cause.row, trap.cause.column)
        if address not in found or trap.strength > found[address].strength:
            found[address] = trap
    return found


def _of_matrix(name: str, items: Sequence[MeasuredMatrix], points: Sequence[Point]) -> list[TrapHistory]:
    seen: dict[Address, list[TrapAt]] = {}
    for item in items:
        for address, trap in strongest_by_address(item.matrix).items():
            seen.setdefault(address, []).append(
                TrapAt(point=item.point, strength=trap.strength, z=trap.z, sigmas=trap.cause.sigmas)
            )
    histories = []
    for (kind, row, column), at in seen.items():
        # It lasts until the matrix is measured without it, or is no longer there.
        later = [item.point for item in items if item.point > at[-1].point]
        later += [place for place, it in enumerate(points) if place > at[-1].point and name in it.missing]
        gone = bool(later)
        histories.append(
            TrapHistory(
                matrix=name, kind=kind, row=row, column=column, first=at[0].point,
                last=min(later) - 1 if later else len(points) - 1, gone=gone,
                growth=at[-1].strength / at[0].strength if at[0].strength > 0 else None, at=tuple(at),
            )
        )  # fmt: skip
    return histories
