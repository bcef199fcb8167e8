"""A point of a trajectory in a few words: the terminal and the page without scripts share them."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.report.document import Report
from llmtrap.report.formatting import fixed, plural, printable
from llmtrap.report.verdict import Level, Tone, judge
from llmtrap.spectra.measured import Cause
from llmtrap.trajectory.document import Point, Trajectory, TrapHistory, report_at

_KINDS = {"mean_shift": "mean shift", "heavy_tail": "heavy tail"}


@dataclass(frozen=True)
class PointRow:
    """One checkpoint as cells of a table; `label` is as its source has it and must be escaped."""

    label: str
    measured: str
    unchanged: str
    traps: str
    new: str
    alpha: str
    verdict: str


def point_row(point: Point, report: Report) -> PointRow:
    """The cells of a point."""
    return PointRow(
        label=point.label,
        measured=f"{point.measured:,}",
        unchanged=f"{point.unchanged:,}",
        traps=f"{point.summary.traps:,}",
        new="–" if point.new_traps is None else f"{len(point.new_traps):,}",
        alpha=fixed(point.summary.alpha.median),
        verdict=judge(report).word,
    )


def point_rows(trajectory: Trajectory) -> list[PointRow]:
    """The cells of every point."""
    return [point_row(point, report_at(trajectory, place)) for place, point in enumerate(trajectory.points)]


def cause_words(trap: TrapHistory | Cause) -> str:
    """`entry [507, 1229]`, `mean shift`."""
    return f"entry [{trap.row}, {trap.column}]" if trap.kind == "entry" else _KINDS[trap.kind]


@dataclass(frozen=True)
class Headline:
    """What the run shows, in words; `level`, `tone` and `word` are those of the last checkpoint's verdict."""

    level: Level
    tone: Tone
    word: str
    lead: str
    rest: str


def headline(trajectory: Trajectory) -> Headline:
    """What happened from the first checkpoint to the last."""
    points = trajectory.points
    answers = judge(report_at(trajectory, len(points) - 1))
    appeared = [trap for trap in trajectory.traps if trap.first > 0 and trap.kind != "mean_shift"]
    there = [trap for trap in appeared if not trap.gone]
    if appeared:
        first = appeared[0]
        place = f"at {printable(points[first.first].label, 60)}, in {printable(first.matrix, 120)}"
        count = f"{plural(len(appeared), 'trap')} appeared after the first checkpoint"
        lead = f"{count}, {_still(len(there), len(appeared))}: the first {place} ({cause_words(first)})."
    else:
        lead = f"No trap appeared after the first of {plural(len(points), 'checkpoint')}."
    grown = [trap for trap in trajectory.traps if trap.growth is not None and trap.growth > 1 and not trap.gone]
    most = max(grown, key=lambda trap: trap.growth or 0.0, default=None)
    rest = ""
    if most is not None and most.growth is not None:
        rest = f"The fastest to grow: {printable(most.matrix, 120)}, {cause_words(most)}, × {most.growth:.2f}."
    return Headline(answers.level, answers.tone, answers.word, lead, rest)


def _still(there: int, of: int) -> str:
    if there == of:
        return "and it is still there" if of == 1 else "and all are still there"
    return f"and {there or 'none'} of {'it' if of == 1 else 'them'} {'is' if there < 2 else 'are'} still there"
