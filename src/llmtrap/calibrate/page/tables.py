"""The page's tables: what their columns are called, and the words in their cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from llmtrap.calibrate.document import Ablation, CalibrationReport, CaseStudy
from llmtrap.calibrate.formatting import percent, signed
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.separation import Interval
from llmtrap.report.formatting import duration, plural


@dataclass(frozen=True)
class Table:
    """A table: its first columns are words, the others numbers. `title` is empty for one that stands alone."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


def _table(title: str, heads: str, words: int, rows: Iterable[tuple[object, ...]]) -> Table:
    """Heads are separated by |; None is shown as a dash, and whole numbers with their thousands apart."""

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    return Table(title, tuple(heads.split(" | ")), tuple(tuple(map(cell, row)) for row in rows), words)


def acceptance(report: CalibrationReport) -> Table:
    """One row a rule: how many runs meet it, and what was found in each."""
    rows = []
    for arm, rule in dict.fromkeys((check.arm, check.rule) for check in report.checks):
        members = [check for check in report.checks if (check.arm, check.rule) == (arm, rule)]
        met = sum(check.passed for check in members)
        found = "; ".join(f"{c.seed}: {c.found}{'' if c.passed else ' (not met)'}" for c in members)
        rows.append((arm, rule, f"{'✓' if met == len(members) else '✗'} {met} of {len(members)}", found))
    passed = sum(check.passed for check in report.checks)
    title = f"{passed} of {len(report.checks)} rules met, over all runs"
    return _table(title, "arm | rule | runs that meet it | found, by seed", 4, rows)


def runs(report: CalibrationReport) -> Table:
    """Every run: how far it came, and what it had reached."""
    rows = (
        (
            run.recipe.arm, run.seed, f"{run.last.step:,}{'' if run.complete else f' of {run.recipe.steps:,}'}",
            run.peak_step, f"{run.peak.test_accuracy:.3f}", f"{run.last.test_accuracy:.3f}",
            f"{run.last.train_accuracy:.3f}", f"{run.steps_per_second:.0f}", duration(run.last.seconds),
            None if run.complete else duration(run.remaining_seconds),
        )
        for run in report.runs
    )  # fmt: skip
    heads = "arm | seed | steps | peak at | peak test | end test | end train | steps/s | CPU time | left"
    return _table(f"{plural(len(report.runs), 'run')}: how far each came, at which rate", heads, 1, rows)


def separation(report: CalibrationReport) -> Table:
    """AUC of every measure, with its interval, against grokked and against pre-grokking checkpoints."""

    def area(interval: Interval | None) -> str | None:
        return None if interval is None else interval.words()

    rows = (
        (
            row.arms, row.label, "high" if row.sign > 0 else "low", area(row.against_grok), area(row.against_pre),
            row.runs, f"{row.anti}, {row.grok}, {row.pre}",
        )
        for row in report.separation
    )  # fmt: skip
    heads = (
        "arms | measure | speaks of overfitting when | AUC against grokked | AUC against pre-grokking | runs | "
        "checkpoints: anti, grokked, pre"
    )
    return _table("The same as a table, and against pre-grokking", heads, 5, rows)


def rates(report: CalibrationReport) -> list[Table]:
    """What each threshold flags, a table for each group of arms."""
    heads = (
        "threshold | of anti-grokking (true positives) | of grokked (false positives) | "
        "of pre-grokking (false positives) | threshold from"
    )
    return [
        _table(
            "all arms" if arms == "all" else f"arms {arms}",
            heads,
            5,
            ((row.threshold, percent(row.anti), percent(row.grok), percent(row.pre), row.origin) for row in members),
        )
        for arms, members in groupby(report.rates, key=lambda row: row.arms)
    ]


def onsets(report: CalibrationReport) -> Table:
    """When the first centred trap was seen in each run that collapses."""
    rows = (
        (
            item.arm, item.seed, item.peak_step, "never" if item.trap_step is None else item.trap_step,
            None if item.lost is None else f"{item.lost:.3f}",
        )
        for item in report.onsets
    )  # fmt: skip
    return _table("", "arm | seed | peak at step | first trap at step | test accuracy lost by then", 1, rows)


def paper(report: CalibrationReport) -> Table:
    """Published numbers beside ours."""
    rows = ((row.source, row.quantity, row.phase, row.paper, row.here) for row in report.paper)
    title = f"{len(report.paper)} published numbers and ours"
    return _table(title, "source | quantity | phase | paper | here", 5, rows)


def phases(report: CalibrationReport) -> list[Table]:
    """Every measure by phase, a table for each arm."""
    return [
        _table(
            f"arm {arm}",
            f"measure | {' | '.join(PHASES)}",
            1,
            ((row.measure, *(_spread(row.cells[phase]) for phase in PHASES)) for row in rows),
        )
        for arm, rows in groupby(report.phases, key=lambda row: row.arm)
    ]


def _spread(cell: tuple[float, float, int] | None) -> str | None:
    if cell is None:
        return None
    mean, spread, number = cell
    shown = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}"
    return shown if number < 2 else f"{shown} ± " + (f"{spread:,.0f}" if spread >= 100 else f"{spread:.2g}")


def ablations(study: CaseStudy) -> list[Table]:
    """The interventions on one trap side by side, in their order."""
    found = []
    for (phase, step, layer, cause, trap), group in groupby(study.ablations, key=_of_trap):
        members = list(group)
        which = trap if cause == "entries" else f"{trap} traps" if trap.startswith("all") else f"trap {trap}"
        kind = "" if cause in ("entries", "all") else f" ({cause.replace('_', ' ')})"
        probes = " | ".join(f"JSD {probe}" for probe in members[0].jsd)
        rows = (
            (
                row.action, f"{row.norm:.1f}", f"{row.train_accuracy:.3f}", signed(row.train_change),
                f"{row.test_accuracy:.3f}", signed(row.test_change), *(f"{value:.3f}" for value in row.jsd.values()),
            )
            for row in members
        )  # fmt: skip
        title = f"{phase}, step {step:,}, {layer}: {which}{kind}"
        found.append(_table(title, f"action | norm | train | change | test | change | {probes}", 1, rows))
    return found


def _of_trap(row: Ablation) -> tuple[str, int, str, str, str]:
    return row.phase, row.step, row.layer, row.cause, row.trap
