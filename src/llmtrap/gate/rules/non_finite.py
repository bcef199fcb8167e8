"""LT005: NaN or infinite weights."""

from __future__ import annotations

from collections.abc import Iterator

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Matched
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation


class NonFinite(RuleSettings):
    """Nothing but the level: one broken entry is enough."""


def check(matched: Matched, settings: NonFinite, chance: Chance) -> Iterator[Violation]:
    """Every measured matrix of the target, whether the base has it or not, and whether the base is broken too."""
    del settings, chance
    for matrix in matched.target.measured.values():
        bad = matrix.non_finite
        if bad is not None:
            yield Violation(
                id=matrix.id,
                tensor=matrix.tensor,
                message=f"{bad.nan:,} NaN and {bad.inf:,} infinite entries, the first at row {bad.row:,}, "
                f"column {bad.column:,}",
                now=float(bad.nan + bad.inf),
                severity=1e9,
            )


RULE = Rule(
    id="LT005",
    name="non-finite",
    title="A matrix has NaN or infinite entries",
    settings=NonFinite,
    check=check,
)
