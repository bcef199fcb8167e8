"""LT002: a trap that the base has too, grown stronger."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.rules.causes import cause_name, cause_words
from llmtrap.report.trap_changes import Tolerances
from llmtrap.report.wording import number


class WorseTrap(RuleSettings):
    """When a trap counts as worse: both conditions must hold."""

    tolerance: float = Field(default=0.25, ge=0, description="allowed growth of a trap's strength, as a share")
    least_rise: float = Field(default=3.0, ge=0, description="least growth in Tracy-Widom units")


def check(pair: Pair, settings: WorseTrap, chance: Chance) -> Iterator[Violation]:
    """A matched trap whose strength grew by more than the tolerance, and by more than shuffles differ."""
    del chance
    changes = pair.trap_changes(Tolerances(stronger_by=settings.tolerance, least_rise=settings.least_rise))
    if changes is None or pair.now is None:
        return
    for now, was in changes.stronger:
        yield Violation(
            id=pair.now.id,
            tensor=pair.now.tensor,
            message=f"a trap of the base grew from {number(was.strength)} to {number(now.strength)} times the "
            f"random edge: {cause_words(now.cause)}",
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
