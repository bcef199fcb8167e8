"""LT015 and LT016: the checkpoint as a whole: how far its matrices moved, and whether those of a role moved alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import import_module

import numpy as np
from pydantic import Field

from llmtrap.gate.chance import comparable_alpha
from llmtrap.gate.document import Chance
from llmtrap.gate.matching import MatchedSides, Pair
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation, missing_update
from llmtrap.report.formatting import number, plural

LEAST_MATRICES = 5
"""With fewer changed matrices there is no whole to speak of; each is judged by itself."""


class Overall(RuleSettings):
    """How far the changed matrices may have moved: quantiles of ‖ΔW‖_F / ‖W_base‖_F over them."""

    max_median: float = Field(default=0.3, gt=0, description="real fine-tunes: 0.01 to 0.22; 4-bit rounding: 0.1")
    max_ninth_decile: float = Field(default=0.4, gt=0, description="nine of ten matrices must lie under it")


class RoleShift(RuleSettings):
    """How far the matrices of one role may have moved together."""

    max_log_norm: float = Field(default=0.05, gt=0, description="mean of log(‖W‖_F / ‖W_base‖_F), up or down")
    max_alpha: float = Field(default=1.5, gt=0, description="mean shift of α, up or down; a real fine-tune: 0.9")
    p_value: float = Field(default=1e-3, gt=0, lt=1, description="of the paired test, beside the size of the shift")


def check_overall(matched: MatchedSides, settings: Overall, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Median and ninth decile of the relative change of all changed matrices."""
    del chance
    if any(missing_update(pair) is not None for pair in matched.changed):
        yield NotJudged(None, "the change ΔW is not known of every changed matrix: give the weights of both sides")
    shares = [
        pair.update.relative for pair in matched.changed
        if pair.update is not None and pair.update.relative is not None and pair.update.relative > 0
    ]  # fmt: skip
    if len(shares) < min(LEAST_MATRICES, max(2, len(matched.pairs) // 2)):
        return
    for name, value, limit in (
        ("median", float(np.median(shares)), settings.max_median),
        ("ninth decile", float(np.quantile(shares, 0.9)), settings.max_ninth_decile),
    ):
        if value > limit:
            message = (
                f"the {plural(len(shares), 'matrix')} that changed moved by {number(100 * value)} % of their norm in "
                f"the {name}, over {number(100 * limit)} %: more than a fine-tune"
            )
            yield Violation(None, None, message, name, now=value, severity=value / limit)


def check_roles(matched: MatchedSides, settings: RoleShift, chance: Chance) -> Iterator[Violation | NotJudged]:
    """A paired t-test over the changed matrices of each role, and the size of their mean shift."""
    del chance
    by_role: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in matched.changed:
        if pair.now is not None and pair.base is not None and not pair.reshaped:
            by_role[pair.it.kind].append(pair)
    for role, pairs in sorted(by_role.items()):
        for name, shifts, limit in (
            ("log-norm", _log_norms(pairs), settings.max_log_norm),
            ("α", _alphas(pairs), settings.max_alpha),
        ):
            if len(shifts) < LEAST_MATRICES:
                continue
            mean = float(np.mean(shifts))
            if abs(mean) > limit and _p_value(shifts) < settings.p_value:
                what = f"a factor of {number(math.exp(mean))}" if name == "log-norm" else f"{number(mean)}"
                of = "Frobenius norm" if name == "log-norm" else "α"
                message = (
                    f"the {of} of the {plural(len(shifts), 'matrix')} of {role} that changed moved together by {what}"
                )
                yield Violation(None, None, message, f"{role}:{name}", now=mean, severity=abs(mean) / limit)


def _log_norms(pairs: Sequence[Pair]) -> list[float]:
    spectra = [
        (pair.now.spectrum, pair.base.spectrum) for pair in pairs if pair.now is not None and pair.base is not None
    ]
    return [
        math.log(now.frobenius_norm / was.frobenius_norm)
        for now, was in spectra
        if now is not None and was is not None and min(now.frobenius_norm, was.frobenius_norm) > 0
    ]


def _alphas(pairs: Sequence[Pair]) -> list[float]:
    known = [comparable_alpha(pair) for pair in pairs]
    return [(now.value or 0.0) - (was.value or 0.0) for now, was in (both for both in known if both is not None)]


def _p_value(shifts: Sequence[float]) -> float:
    if np.ptp(shifts) < 1e-9 * max(map(abs, shifts)):
        return 0.0  # all alike: the test would divide by zero
    stats = import_module("scipy.stats")  # half a second, which most gates need not spend
    return float(stats.ttest_1samp(shifts, 0.0).pvalue)


LT015 = Rule(
    id="LT015",
    name="overall-change",
    title="The changed matrices as a whole moved farther than a fine-tune moves them",
    settings=Overall,
    check=check_overall,
    scope="checkpoint",
)
LT016 = Rule(
    id="LT016",
    name="role-shift",
    title="The matrices of a role were rescaled or reshaped together",
    settings=RoleShift,
    check=check_roles,
    scope="checkpoint",
)
