"""LT013 and LT014: changes that leave a mark of their own: emptied rows or columns, and an edit of rank one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import MatchedSides, Pair
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation, missing_update, of_pairs
from llmtrap.report.formatting import number, plural

LEAST_LENGTH = 50
"""Entries of a row or column: rounding to four bits may take away all of a shorter one."""

LEAST_SIDE = 8
"""Rows and columns of a matrix whose change may be an edit: one of fewer has next to no rank to change by."""


class Emptied(RuleSettings):
    """How many rows or columns of a matrix may lose their weights."""

    max_share: float = Field(default=0.002, ge=0, lt=1, description="share of a matrix's rows, or of its columns")
    at_least: int = Field(default=2, ge=1, description="fewer never count")


class RankOne(RuleSettings):
    """When a change is an edit. It is asked only where few matrices changed: training changes most of them."""

    max_stable_rank: float = Field(default=1.5, ge=1, description="of ΔW: 1 is a change of rank one")
    most_changed: float = Field(default=0.1, gt=0, le=1, description="share of the matrices that changed, at most")
    most_matrices: int = Field(default=12, ge=1, description="and so many matrices, at most")


def check_emptied(pair: Pair, settings: Emptied, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Rows and columns whose norm fell under a tenth of the base's."""
    del chance
    if (gap := missing_update(pair)) is not None:
        yield gap
    if pair.update is None:
        return
    update, shape = pair.update, pair.was.shape
    for name, count, first, size, length in (
        ("row", update.emptied_rows, update.first_emptied_row, shape[0], shape[1]),
        ("column", update.emptied_columns, update.first_emptied_column, shape[1], shape[0]),
    ):
        if length >= LEAST_LENGTH and count >= max(settings.at_least, math.ceil(settings.max_share * size)):
            message = f"{plural(count, name)} of {size:,} lost their weights, the first is {name} {first or 0:,}"
            yield Violation(pair.it.id, pair.it.tensor, message, name, now=float(count), severity=count / size)


def check_rank_one(matched: MatchedSides, settings: RankOne, chance: Chance) -> Iterator[Violation | NotJudged]:
    """A change of rank one in one or a few matrices, as ROME and MEMIT edit knowledge or a backdoor is planted."""
    del chance
    changed = [pair for pair in matched.changed if pair.update is None or pair.update.frobenius_norm > 0]
    if not 0 < len(changed) <= min(settings.most_matrices, max(1, settings.most_changed * len(matched.pairs))):
        return
    for pair in changed:
        if (gap := missing_update(pair)) is not None:
            yield gap
        if pair.update is None or min(pair.it.shape) < LEAST_SIDE:
            continue
        if not pair.update.stable_rank <= settings.max_stable_rank:
            continue
        others = f"one of {len(changed):,} changed matrices" if len(changed) > 1 else "the only changed matrix"
        message = (
            f"the change is of rank one (stable rank {number(pair.update.stable_rank)}) and sits in {others}: a "
            "knowledge edit (ROME, MEMIT) or a planted layer looks like this, training does not"
        )
        yield Violation(pair.it.id, pair.it.tensor, message, "rank one", now=pair.update.stable_rank)


LT013 = Rule(
    id="LT013",
    name="emptied",
    title="Rows or columns of a matrix lost their weights",
    settings=Emptied,
    check=of_pairs(check_emptied),
)
LT014 = Rule(
    id="LT014",
    name="rank-one-edit",
    title="One or a few matrices were changed, each by a matrix of rank one",
    settings=RankOne,
    check=check_rank_one,
)
