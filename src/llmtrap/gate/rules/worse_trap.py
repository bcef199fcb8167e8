"""LT002: a trap that the base has too, grown stronger."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.rules.causes import cause_name, cause_words
from llmtrap.gate.storage import allowance_of
from llmtrap.report.formatting import number
from llmtrap.report.trap_changes import Tolerances


class WorseTrap(RuleSettings):
    """When a trap counts as worse: both conditions must hold."""

    tolerance: float = Field(default=0.25, ge=0, description="allowed growth of a trap's strength, as a share")
    least_rise: float = Field(default=3.0, ge=0, description="least growth in Tracy-Widom units")


def check(pair: Pair, settings: WorseTrap, chance: Chance) -> Iterator[Violation]:
    """A matched trap whose strength grew by more than the tolerance, and by more than shuffles differ."""
    del chance
    allowance = allowance_of(pair)
    rounded, why = (0.0, "") if allowance is None else (allowance.factor - 1, f"; {allowance.words}")
    stronger_by = max(settings.tolerance, rounded)
    changes = pair.trap_changes(Tolerances(stronger_by=stronger_by, least_rise=settings.least_rise))
    if changes is None or pair.now is None:
        return
    for now, was in changes.stronger:
        yield Violation(
            id=pair.now.id,
            tensor=pair.now.tensor,
            message=f"a trap of the base grew from {number(was.strength)} to {number(now.strength)} times the "
            f"random edge: {cause_words(now.cause)}{why}",
            cause=cause_name(now.cause),
            now=now.strength,
            base=was.strength,
            severity=now.z - was.z,
        )


RULE = Rule(
    id="LT002",
    name="worse-trap",
    title="A Correlation Trap of the base has grown stronger",
    settings=WorseTrap,
    check=of_pairs(check),
)
