"""Keep false alarms in check over the whole audit: the more matrices are judged, the stricter each test."""

from __future__ import annotations

from collections.abc import Iterable

from scipy import special

from llmtrap.gate import document
from llmtrap.gate.matching import Pair
from llmtrap.report.document import Matrix
from llmtrap.spectra.measured import Alpha
from llmtrap.spectra.tracy_widom import quantile_of_survival
from llmtrap.spectra.traps import FALSE_ALARM


def chance_of(pairs: Iterable[Pair], without_base: Iterable[Matrix], false_alarms: float) -> document.Chance:
    """Share the allowed false alarms among the tests (Bonferroni): half to traps, half to α.

    A matrix without traps shows one in a shuffle with probability 10⁻⁶ (the audit's own rule). Where that, times the
    number of matrices, is over the half, the edge for a new cause is raised. A matrix with predicted traps is no test,
    since every shuffle must show them. A change of α counts as one from so many combined standard errors on that a
    normal error would reach it, in either direction, in the other half.

    Args:
        pairs: what is judged against the base; unchanged matrices cost no chance.
        without_base: measured matrices that are judged alone.
        false_alarms: the most false alarms to expect over the audit.
    """
    changed = [pair for pair in pairs if not pair.unchanged]
    alone = list(without_base)
    judged = [pair.now for pair in changed if pair.now is not None] + alone
    traps = sum(matrix.traps is not None and matrix.traps.method != "predicted" for matrix in judged)
    alphas = sum(comparable_alpha(pair) is not None for pair in changed)
    half = false_alarms / 2
    per_trap = min(FALSE_ALARM, half / traps) if traps else FALSE_ALARM
    per_alpha = min(half / alphas, 0.5) if alphas else half
    return document.Chance(
        false_alarms=false_alarms,
        trap_tests=traps,
        trap_z=quantile_of_survival(per_trap),
        alpha_tests=alphas,
        alpha_sigmas=float(-special.ndtri(per_alpha / 2)),
        expected=traps * per_trap + alphas * per_alpha,
    )


def comparable_alpha(pair: Pair) -> tuple[Alpha, Alpha] | None:
    """α of both sides, where both fits are reliable and of one shape."""
    if pair.now is None or pair.base is None or sorted(pair.now.shape) != sorted(pair.base.shape):
        return None
    now, was = pair.now.alpha, pair.base.alpha
    if now is None or was is None or not (now.reliable and was.reliable) or now.value is None or was.value is None:
        return None
    return now, was
