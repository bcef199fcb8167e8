"""LT011: more centred traps than an absolute number allows; the one trap rule that needs no base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import MatchedSides
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation
from llmtrap.gate.rules.causes import cause_words
from llmtrap.report.facts import strongest
from llmtrap.report.formatting import number, plural


class MaxTraps(RuleSettings):
    """How many, and when that is asked."""

    max_traps: int = Field(
        default=0, ge=0, description="centred traps (single entries, heavy tails) allowed in one matrix"
    )
    when: Literal["no-base", "always"] = Field(
        default="no-base", description="no-base: only where there is no base, since a fine-tune inherits its base's"
    )


def check(matched: MatchedSides, settings: MaxTraps, chance: Chance) -> Iterator[Violation]:
    """Every measured matrix with a reliable count; mean shifts do not count, since healthy networks have them."""
    del chance
    if settings.when == "no-base" and matched.base is not None:
        return
    for matrix in matched.target.measured.values():
        traps = matrix.traps
        if traps is None or not traps.reliable or traps.centred <= settings.max_traps:
            continue
        trap = strongest(matrix)
        why = (
            f", the strongest {number(trap.strength)} times the random edge: {cause_words(trap.cause)}" if trap else ""
        )
        yield Violation(
            id=matrix.id,
            tensor=matrix.tensor,
            message=f"{plural(traps.centred, 'centred trap')} and {settings.max_traps} allowed{why}",
            now=float(traps.centred),
            severity=0.0 if trap is None else trap.strength,
        )


RULE = Rule(
    id="LT011",
    name="max-traps",
    title="A matrix has more centred Correlation Traps than an absolute number allows",
    settings=MaxTraps,
    check=check,
)
