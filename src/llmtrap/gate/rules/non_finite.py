"""LT005: NaN or infinite weights."""

from __future__ import annotations

from collections.abc import Iterator

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import MatchedSides
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation
from llmtrap.report.formatting import printable


class NonFinite(RuleSettings):
    """Nothing but the level: one broken entry is enough."""


def check(matched: MatchedSides, settings: NonFinite, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Every measured matrix of the target, whatever the base has there, and every other tensor."""
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
    for tensor in matched.outside or ():
        if tensor.nan or tensor.inf:
            yield Violation(
                id=None,
                tensor=tensor.tensor,
                message=f"{tensor.tensor}, which is no weight matrix: {tensor.nan:,} NaN and {tensor.inf:,} infinite "
                "values",
                cause=tensor.tensor,
                now=float(tensor.nan + tensor.inf),
                severity=1e9,
            )
        elif tensor.change == "unreadable":
            yield NotJudged(None, f"{tensor.tensor} could not be read: {tensor.error}")
    for found in matched.target.tensors or ():
        if found.nan or found.inf:
            message = f"{printable(found.tensor, 160)}, which is no weight matrix: {found.nan:,} NaN and {found.inf:,} "
            yield Violation(None, found.tensor, f"{message}infinite values", cause=found.tensor, severity=1e9)
    if matched.outside is None and matched.target.tensors is None and not matched.adapter_alone:
        yield NotJudged(None, "an older report says nothing of tensors outside the matrices: audit it anew")


RULE = Rule(
    id="LT005",
    name="non-finite",
    title="A matrix or another tensor has NaN or infinite entries",
    settings=NonFinite,
    check=check,
)
