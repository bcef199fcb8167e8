"""LT003 and LT004: α of a matrix against the base's own α, with the errors of both fits."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.chance import comparable_alpha
from llmtrap.gate.document import Chance, Level
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.storage import allowance_of
from llmtrap.report.formatting import fixed, number

OVER_TRAINED = 2.0
_CERTAIN = 1e6  # combined standard errors, where a fit claims none


class OverTrained(RuleSettings):
    """When a fall below 2 counts."""

    least_fall: float = Field(default=0.0, ge=0, description="least fall of α, beside being beyond its error")


class AlphaDrift(RuleSettings):
    """When a change of α counts as drift."""

    level: Level = "warn"
    least_change: float = Field(default=0.5, ge=0, description="least change of α, beside being beyond its error")


def without_alpha(pair: Pair) -> NotJudged | None:
    """Where a side was measured without α. A fit that is not reliable is another thing: there is no α to compare."""
    if pair.now is None or pair.base is None or pair.now.non_finite is not None or pair.base.non_finite is not None:
        return None
    if pair.now.alpha is None or pair.base.alpha is None:
        where = "here" if pair.now.alpha is None else "in the base"
        return NotJudged(pair.it.id, f"α was not computed {where}: audit it without --no-alpha")
    return None


def check_over_trained(pair: Pair, settings: OverTrained, chance: Chance) -> Iterator[Violation | NotJudged]:
    """α fell into the over-trained band, by more than the errors of both fits explain."""
    if (gap := without_alpha(pair)) is not None:
        yield gap
    known = comparable_alpha(pair)
    if known is None or pair.now is None:
        return
    now, was = known
    value, before, sigmas = _shift(pair)
    least, why = _beyond_storage(pair, settings.least_fall)
    if value >= OVER_TRAINED or before < OVER_TRAINED or before - value < least:
        return
    if -sigmas > chance.alpha_sigmas:
        yield Violation(
            id=pair.now.id,
            tensor=pair.now.tensor,
            message=f"α fell below 2 (over-trained): {_words(value, now.sigma)} now, {_words(before, was.sigma)} in "
            f"the base, {number(-sigmas)} combined standard errors{why}",
            cause="over",
            now=value,
            base=before,
            severity=-sigmas,
        )


def check_drift(pair: Pair, settings: AlphaDrift, chance: Chance) -> Iterator[Violation | NotJudged]:
    """α moved by more than the errors of both fits explain, or there is no fit any more where the base has one."""
    if (gap := without_alpha(pair)) is not None:
        yield gap
    if pair.now is None or pair.base is None:
        return
    now, was = pair.now.alpha, pair.base.alpha
    if now is not None and was is not None and was.reliable and not now.reliable:
        yield Violation(
            id=pair.now.id,
            tensor=pair.now.tensor,
            message=f"no reliable fit of α any more ({now.reason or 'no reason given'}); "
            f"the base has {_words(was.value, was.sigma)}",
            cause="unreliable",
            base=was.value,
        )
        return
    known = comparable_alpha(pair)
    if known is None:
        return
    value, before, sigmas = _shift(pair)
    least, why = _beyond_storage(pair, settings.least_change)
    if abs(sigmas) > chance.alpha_sigmas and abs(value - before) >= least:
        yield Violation(
            id=pair.now.id,
            tensor=pair.now.tensor,
            message=f"α moved from {_words(before, known[1].sigma)} to {_words(value, known[0].sigma)}, "
            f"{number(abs(sigmas))} combined standard errors{why}",
            cause="moved",
            now=value,
            base=before,
            severity=abs(sigmas),
        )


def _beyond_storage(pair: Pair, least: float) -> tuple[float, str]:
    """The least change that counts, wider where the two sides are stored in formats that round; and why, in words."""
    allowance = allowance_of(pair)
    return (least, "") if allowance is None else (max(least, allowance.alpha), f"; {allowance.words}")


def _shift(pair: Pair) -> tuple[float, float, float]:
    """α now, α of the base, and their difference in combined standard errors."""
    known = comparable_alpha(pair)
    assert known is not None  # noqa: S101 - both callers looked
    now, was = known
    value, before = now.value or 0.0, was.value or 0.0
    error = math.hypot(now.sigma or 0.0, was.sigma or 0.0)
    if error == 0:
        return value, before, math.copysign(_CERTAIN, value - before) if value != before else 0.0
    return value, before, (value - before) / error


def _words(value: float | None, sigma: float | None) -> str:
    return f"{fixed(value)} ± {fixed(sigma)}"


LT003 = Rule(
    id="LT003",
    name="alpha-over-trained",
    title="α of a matrix fell below 2, where its base is above",
    settings=OverTrained,
    check=of_pairs(check_over_trained),
)
LT004 = Rule(
    id="LT004",
    name="alpha-drift",
    title="α of a matrix moved away from its base's by more than the errors of the fits",
    settings=AlphaDrift,
    check=of_pairs(check_drift),
)
