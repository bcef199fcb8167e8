"""The table of the worst matrices, as short text: the terminal, Markdown and the page without scripts share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmtrap.report.document import Matrix
from llmtrap.report.facts import is_at_edge, is_notable, state, strongest, worst
from llmtrap.report.formatting import fixed, number
from llmtrap.spectra.measured import Alpha, Trap


@dataclass(frozen=True)
class Row:
    """One matrix in a few words; `name` is still as the file has it and must be escaped by the output."""

    name: str
    alpha: str
    traps: str
    strength: str
    why: str


def notable_rows(matrices: Iterable[Matrix], limit: int | None = None) -> list[Row]:
    """The matrices a reader should look at, worst first."""
    return [row(matrix) for matrix in worst([m for m in matrices if is_notable(m)], limit)]


def row(matrix: Matrix) -> Row:
    """One matrix."""
    trap = strongest(matrix)
    return Row(
        name=matrix.id,
        alpha=alpha_cell(matrix.alpha),
        traps=traps_cell(matrix),
        strength="–" if trap is None else number(trap.strength),
        why=why_cell(matrix),
    )


def alpha_cell(alpha: Alpha | None) -> str:
    """`1.72 <2`, `3.20`, `6.80 >6`, `2.70 noise`, `3.00 ?` (unreliable), `–`."""
    if alpha is None or alpha.value is None:
        return "–"
    mark = "?" if not alpha.reliable else {"over": "<2", "under": ">6", "random": "noise"}.get(alpha.band or "", "")
    return f"{fixed(alpha.value)} {mark}".rstrip()


def traps_cell(matrix: Matrix) -> str:
    """Centred traps, mean shifts beside them: `2`, `2 +1 m`, `0–1` at the edge, `?` undecided."""
    traps = matrix.traps
    if traps is None:
        return "–"
    if traps.method == "undecided":
        return "?"
    text = f"{traps.low}–{traps.high}" if is_at_edge(matrix) and traps.low < traps.high else str(traps.centred)
    if traps.mean_shift:
        text += f" +{traps.mean_shift} m"
    return text if traps.reliable else f"{text} ?"


def why_cell(matrix: Matrix) -> str:
    """The cause, or the state, in a few words."""
    what = state(matrix)
    if matrix.non_finite is not None:
        return f"{matrix.non_finite.nan:,} NaN, {matrix.non_finite.inf:,} infinite"
    if matrix.all_zero:
        return "every entry is zero"
    trap = strongest(matrix)
    parts = []
    if trap is not None:
        parts.append(short_cause(trap, matrix))
    elif what == "undecided":
        parts.append("not decided")
    if is_at_edge(matrix):
        parts.append("at the edge")
    if what == "unreliable":
        parts.append("too small to trust")
    if matrix.alpha is not None and matrix.alpha.reliable and matrix.alpha.band == "over":
        parts.append("heavy tail of the spectrum")
    return ", ".join(parts)


def short_cause(trap: Trap, matrix: Matrix) -> str:
    """`entry [11, 308] 175 s.d.`, `heavy tail κ 46`, `mean shift`."""
    cause = trap.cause
    if cause.kind == "entry":
        place = f" [{cause.row}, {cause.column}]" if cause.row is not None and cause.column is not None else ""
        far = f" {number(abs(cause.sigmas))} s.d." if cause.sigmas is not None else ""
        return f"entry{place}{far}" + (f", {cause.activity}" if cause.activity is not None else "")
    if cause.kind == "mean_shift":
        return "mean shift"
    kurtosis = matrix.traps.kurtosis if matrix.traps is not None else None
    return "heavy tail" + (f" κ {number(kurtosis, 2)}" if kurtosis is not None else "")
