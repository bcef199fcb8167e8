"""A report against the report of its base: which traps are new or gone, and how far the numbers moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmtrap.checkpoint.naming import table_of
from llmtrap.printable import printable
from llmtrap.report.document import Matrix, Report
from llmtrap.report.facts import badness, is_decided, strongest
from llmtrap.report.formatting import join, number, plural
from llmtrap.report.trap_changes import TrapChanges, compare_traps
from llmtrap.spectra.measured import Trap

Change = Literal["new", "stronger", "gone", "weaker", "same", "unknown"]
CHANGED: tuple[Change, ...] = ("new", "stronger", "gone")

# An exponent has moved when it did so by more than this many combined standard errors of the two fits.
ALPHA_SIGMAS = 3.0


@dataclass(frozen=True)
class Shift:
    """One matrix against the same matrix of the base.

    Attributes:
        matrix: as it is now.
        base: as it was.
        traps: what `trap_changes` says of them; unknown: not decided, or not reliably, on one side.
        alpha: α now minus α of the base; None where a side has no reliable fit or the shapes differ.
        moved: whether that is more than three combined standard errors.
        strength: that of the strongest trap now minus the base's; no trap counts as 1, the random edge.
        stable_rank: stable rank now minus the base's.
        why: the change of traps in words; empty where there is none.
    """

    matrix: Matrix
    base: Matrix
    traps: Change
    alpha: float | None
    moved: bool
    strength: float | None
    stable_rank: float | None
    why: str

    @property
    def fell(self) -> bool:
        """Whether the matrix came into the over-trained band (α below 2)."""
        return self.alpha is not None and _band(self.matrix) == "over" != _band(self.base)


@dataclass(frozen=True)
class Comparison:
    """A report against its base: matched matrices by id, and what only one side has.

    `unchanged` matrices are byte for byte the base's, and in neither report.
    """

    base: Report
    shifts: dict[str, Shift]
    added: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    unchanged: int = 0

    def __repr__(self) -> str:
        from llmtrap.report.comparison_text import against_words  # noqa: PLC0415  (it is made of this)

        return f"<Comparison with {printable(self.base.target.name, 80)}: {against_words(self)}>"

    def of(self, change: Change) -> list[Shift]:
        """The matrices with this change of traps, strongest first."""
        chosen = [shift for shift in self.shifts.values() if shift.traps == change]
        return sorted(chosen, key=lambda shift: -_strength(shift.matrix if change != "gone" else shift.base))

    @property
    def moved(self) -> list[Shift]:
        """The matrices whose α moved, farthest first."""
        chosen = [shift for shift in self.shifts.values() if shift.moved]
        return sorted(chosen, key=lambda shift: -abs(shift.alpha or 0.0))

    @property
    def fell(self) -> list[Shift]:
        """The matrices that came into the over-trained band (α below 2), lowest first."""
        return sorted((shift for shift in self.shifts.values() if shift.fell), key=lambda shift: _value(shift.matrix))


def compare(
    report: Report,
    base: Report,
    changes: Mapping[str, TrapChanges] | None = None,
    unchanged: int = 0,
) -> Comparison:
    """Match the matrices of two reports by canonical id, aliases of tied weights included, and compare each pair.

    Args:
        report: the report.
        base: the report of its base.
        changes: what is known of the traps already, by the id of the report's matrix: who has the weights at hand
            knows more than the two reports.
        unchanged: matrices known to be the base's own, which are in neither report.
    """
    known = changes or {}
    mine, theirs = _without_tables(report.matrices), _without_tables(base.matrices)
    was = {alias: matrix for matrix in theirs for alias in matrix.aliases}
    was |= {matrix.id: matrix for matrix in theirs}
    pairs = {m.id: next((was[name] for name in (m.id, *m.aliases) if name in was), None) for m in mine}
    now = {name for matrix in mine for name in (matrix.id, *matrix.aliases)}
    return Comparison(
        base=base,
        shifts={m.id: _shift(m, pair, known.get(m.id)) for m in mine if (pair := pairs[m.id]) is not None},
        added=tuple(name for name, pair in pairs.items() if pair is None),
        missing=tuple(m.id for m in theirs if now.isdisjoint((m.id, *m.aliases))),
        notes=_notes(report, base),
        unchanged=unchanged,
    )


def _without_tables(matrices: Iterable[Matrix]) -> list[Matrix]:
    """The matrices but for tables, which older versions measured."""
    return [matrix for matrix in matrices if table_of(matrix.role) is None]


def _shift(matrix: Matrix, base: Matrix, changes: TrapChanges | None) -> Shift:
    changes = changes or compare_traps(matrix, base)
    alpha, moved = _alpha(matrix, base)
    rank = None
    if matrix.spectrum is not None and base.spectrum is not None:
        rank = matrix.spectrum.stable_rank - base.spectrum.stable_rank
    known = is_decided(matrix) and is_decided(base)
    strength = _strength(matrix) - _strength(base) if known else None
    change: Change = "unknown" if changes is None else changes.state
    return Shift(
        matrix, base, change, alpha, moved, strength, rank, "" if changes is None else _words(changes, matrix, base)
    )


def _words(changes: TrapChanges, matrix: Matrix, base: Matrix) -> str:
    """The change of traps in words; empty where there is none."""
    if changes.state in ("new", "gone"):
        causes = [_cause(trap) for trap in (changes.new or changes.gone)]
        named = f" ({join(causes[:3])}{', …' if len(causes) > 3 else ''})" if causes else ""
        now, was = matrix.traps, base.traps
        return f"traps {0 if was is None else was.count} → {0 if now is None else now.count}{named}"
    pairs = changes.stronger or changes.weaker
    if not pairs:
        return ""
    after, before = max(pairs, key=lambda pair: abs(pair[0].strength - pair[1].strength))
    return f"strength {number(before.strength)} → {number(after.strength)} times the random edge"


def _cause(trap: Trap) -> str:
    cause = trap.cause
    place = (
        f" at row {cause.row:,}, column {cause.column:,}" if cause.row is not None and cause.column is not None else ""
    )
    return cause.kind.replace("_", " ") + place


def _strength(matrix: Matrix) -> float:
    trap = strongest(matrix)
    return 1.0 if trap is None else trap.strength


def _alpha(matrix: Matrix, base: Matrix) -> tuple[float | None, bool]:
    now, was = matrix.alpha, base.alpha
    if now is None or was is None or not (now.reliable and was.reliable) or sorted(matrix.shape) != sorted(base.shape):
        return None, False
    if now.value is None or was.value is None:
        return None, False
    shift = now.value - was.value
    error = math.hypot(now.sigma or 0.0, was.sigma or 0.0)
    return shift, abs(shift) > ALPHA_SIGMAS * error > 0


def _band(matrix: Matrix) -> str | None:
    return matrix.alpha.band if matrix.alpha is not None else None


def _value(matrix: Matrix) -> float:
    return matrix.alpha.value if matrix.alpha is not None and matrix.alpha.value is not None else math.inf


def _notes(report: Report, base: Report) -> tuple[str, ...]:
    """What makes the two reports less comparable."""
    notes = []
    if report.settings.trap_rule != base.settings.trap_rule:
        notes.append(f"the rules differ: {report.settings.trap_rule} here, {base.settings.trap_rule} in the base")
    if report.settings.split_fused != base.settings.split_fused:
        notes.append("fused matrices are split in one of the reports only")
    if report.target.family != base.target.family:
        notes.append("the reports are of different architecture families")
    shared = {m.id: m.shape for m in base.matrices}
    reshaped = sum(m.id in shared and sorted(shared[m.id]) != sorted(m.shape) for m in report.matrices)
    if reshaped:
        notes.append(f"{plural(reshaped, 'matrix')} of another shape, so α is not compared there")
    return tuple(notes)


def changed_first(matrices: Sequence[Matrix], comparison: Comparison | None) -> list[int]:
    """The order of a table, as indices: worst first; against a base new, stronger and gone traps before the rest."""

    def key(index: int) -> tuple[float, ...]:
        matrix = matrices[index]
        shift = comparison.shifts.get(matrix.id) if comparison is not None else None
        rank = CHANGED.index(shift.traps) if shift is not None and shift.traps in CHANGED else len(CHANGED)
        return (matrix.non_finite is None, rank, *badness(matrix))

    return sorted(range(len(matrices)), key=key)
