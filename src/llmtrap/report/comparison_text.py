"""A report against its base, in words; every output takes its words from here."""

from __future__ import annotations

from dataclasses import replace

from llmtrap.report.against import CHANGED, Change, Comparison, Shift
from llmtrap.report.document import Matrix, Report
from llmtrap.report.formatting import fixed, join, plural
from llmtrap.report.verdict import Level, Verdict, judge

CHANGE_WORDS: dict[Change, str] = {
    "new": "new trap",
    "stronger": "stronger trap",
    "gone": "trap gone",
    "weaker": "weaker trap",
    "same": "as in the base",
    "unknown": "cannot be compared",
}
NOT_IN_BASE = "not in the base"
_MORE: dict[Change, str] = {"stronger": "stronger ones", "gone": "traps gone"}


_OF_ITSELF: frozenset[Level] = frozenset({"unusual", "usual"})
"""What a report says of its traps, which against a base is what changed; anything graver stays as it is."""

_NEW = "Traps that the base does not have go with overfitting in experiments. They say where to look."
_NOTHING_NEW = "What traps there are, the base has too. That is no proof that the model does not overfit."


def judge_against(report: Report, comparison: Comparison | None) -> Verdict:
    """The verdict of a report; against a base it is led by what is new, stronger or gone there."""
    answers = judge(report)
    if comparison is None:
        return answers
    if comparison.unchanged and not report.coverage.planned:
        lead = f"All {plural(comparison.unchanged, 'matrix')} are byte for byte the base's."
        return replace(
            answers,
            level="usual",
            tone="green",
            word="Nothing changed",
            lead=lead,
            meaning="Nothing new can be in them.",
        )
    if not comparison.shifts or answers.level not in _OF_ITSELF:
        return answers
    new, stronger, gone = (bool(comparison.of(change)) for change in CHANGED)
    word = "New traps" if new else "Stronger traps" if stronger else "Traps gone" if gone else "No new traps"
    return replace(
        answers,
        level="unusual" if new or stronger else "usual",
        tone="red" if new or stronger else "green",
        word=word,
        lead=trap_change_words(comparison),
        rest=f"By itself: {answers.headline}",
        meaning=_NEW if new or stronger else _NOTHING_NEW,
    )


def trap_change_words(comparison: Comparison) -> str:
    """Whether the traps are new against the base, in one sentence."""
    if not comparison.shifts:
        return "No matrix of this report is in the base, so nothing can be compared."
    counts = {change: len(comparison.of(change)) for change in CHANGE_WORDS}
    compared = len(comparison.shifts) - counts["unknown"]
    if not compared:
        return "No matrix could be compared for traps."
    if not any(counts[change] for change in CHANGED):
        return f"No trap is new, stronger or gone: all as in the base ({plural(compared, 'matrix')} compared)."
    first = f"New traps in {plural(counts['new'], 'matrix')}" if counts["new"] else "No new traps"
    more = [f"{words} in {counts[change]:,}" for change, words in _MORE.items() if counts[change]]
    return f"{join([first, *more])}, of {compared:,} compared."


def against_words(comparison: Comparison) -> str:
    """The comparison in a few sentences: traps, α, and what could not be compared."""
    text = trap_change_words(comparison)
    if not comparison.shifts:
        return text
    if comparison.moved or comparison.fell:
        text += f" α moved beyond its error in {len(comparison.moved):,} and fell below 2 in {len(comparison.fell):,}."
    elif any(shift.alpha is not None for shift in comparison.shifts.values()):
        text += " α moved beyond its error nowhere."
    unknown = len(comparison.of("unknown"))
    if unknown:
        text += f" {plural(unknown, 'matrix')} could not be compared for traps."
    if comparison.added or comparison.missing:
        text += f" Only here: {len(comparison.added):,}; only in the base: {len(comparison.missing):,}."
    return text


def shift_words(shift: Shift | None) -> str:
    """One matrix against the base in a few words: `new trap`, `traps as in the base, α fell below 2`."""
    if shift is None:
        return NOT_IN_BASE
    moved = "α fell below 2" if shift.fell else "α moved" if shift.moved else ""
    if shift.traps == "same" and moved:
        return f"traps {CHANGE_WORDS['same']}, {moved}"
    return CHANGE_WORDS[shift.traps] + (f", {moved}" if moved else "")


def alpha_shift_words(shift: Shift) -> str:
    """`3.10 → 2.40 (−0.70)`."""
    plus = "+" if (shift.alpha or 0) > 0 else ""
    return f"{fixed(_alpha(shift.base))} → {fixed(_alpha(shift.matrix))} ({plus}{fixed(shift.alpha)})"


def _alpha(matrix: Matrix) -> float | None:
    return matrix.alpha.value if matrix.alpha is not None else None
