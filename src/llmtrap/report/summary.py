"""The head of a report, counted from its matrices."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from llmtrap.report.document import (
    AlphaSummary,
    Caution,
    Coverage,
    Matrix,
    Remembered,
    Settings,
    Summary,
    TensorFinding,
)
from llmtrap.report.facts import tally
from llmtrap.report.verdict import report_level

# The tracy-widom rule calls an eigenvalue a trap at p <= 1e-6: the false alarms to expect of one matrix without traps.
FALSE_ALARM_RATE = 1e-6


def summarise(
    matrices: Sequence[Matrix],
    coverage: Coverage,
    settings: Settings,
    seconds: float,
    peak_rss_bytes: int,
    tensors: Sequence[TensorFinding] = (),
    remembered: Remembered | None = None,
    cautions: Sequence[Caution] = (),
) -> Summary:
    """Count traps, bands and methods.

    The verdict is put into words by `judging.judged`, which also sets the level by what is rare.

    Args:
        matrices: every matrix measured.
        coverage: what was planned, skipped and failed.
        settings: the audit's settings; the trap rule decides whether false alarms can be expected by number.
        seconds: how long the audit took.
        peak_rss_bytes: the most memory it held.
        tensors: findings in tensors that are no matrix.
        remembered: what came from a journal.
        cautions: what the storage did to the weights beside rounding them.

    Returns:
        The summary. Traps are counted where the count is reliable, α over the reliable fits only.
    """
    counts = tally(matrices)
    alphas = [m.alpha.value for m in matrices if m.alpha and m.alpha.reliable and m.alpha.value is not None]
    return Summary(
        verdict="",
        level=report_level(counts, coverage, (), cautions),
        matrices=counts.matrices,
        with_traps=counts.trapped,
        uncertain=counts.uncertain,
        traps=counts.traps,
        mean_shifts=counts.mean_shifts,
        certified=counts.certified,
        predicted=counts.predicted,
        measured=counts.measured,
        undecided=counts.states["undecided"],
        expected_false_traps=counts.left_to_chance * FALSE_ALARM_RATE if settings.trap_rule == "tracy-widom" else None,
        alpha=AlphaSummary(
            mean=fmean(alphas) if alphas else None,
            median=median(alphas) if alphas else None,
            over=counts.over,
            well=counts.well,
            under=counts.under,
            random=counts.random,
            unreliable=counts.unreliable_alpha,
        ),
        non_finite=counts.states["non_finite"] + sum(not item.all_zero for item in tensors),
        all_zero=counts.all_zero + sum(item.all_zero for item in tensors),
        remembered=remembered,
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes,
    )
