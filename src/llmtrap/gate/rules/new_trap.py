"""LT001: a matrix has a Correlation Trap that its base does not have."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.rules.causes import cause_name, cause_words
from llmtrap.gate.storage import allowance_of
from llmtrap.report.document import Matrix
from llmtrap.report.formatting import number, plural
from llmtrap.report.trap_changes import Tolerances, comparable_traps
from llmtrap.spectra.measured import Trap, Traps


class NewTrap(RuleSettings):
    """When a trap counts as new."""

    margin: float = Field(
        default=3.0, ge=0, description="how far beyond the edge a new cause must stand, in Tracy-Widom units"
    )


def check(pair: Pair, settings: NewTrap, chance: Chance) -> Iterator[Violation | NotJudged]:
    """More traps than the base in every shuffle, made or predicted, or one of another cause well beyond the edge."""
    changes = pair.trap_changes(Tolerances(margin=settings.margin, chance_z=chance.trap_z))
    known = comparable_traps(pair.now, pair.base)
    if changes is None or known is None or pair.now is None:
        return
    now, was = known
    allowance = allowance_of(pair)
    if allowance is not None and not allowance.traps_hold and (changes.counted or changes.new):
        # No pass, and no proof: the coarser side may have lost a trap that both had, or made one.
        yield NotJudged(pair.now.id, f"{_count(was)} in the base, {_count(now)} here, but {allowance.words}")
        return
    if changes.counted:
        yield _counted(pair.now, now, was)
    for trap in changes.new:
        yield _violation(pair.now, trap, now, was)
    for trap in changes.open:
        why = f"the base's report does not say what stands at the place of {cause_words(trap.cause)}"
        yield NotJudged(pair.now.id, f"{why}: give the base's weights")


def _violation(matrix: Matrix, trap: Trap, now: Traps, was: Traps) -> Violation:
    return Violation(
        id=matrix.id,
        tensor=matrix.tensor,
        message=f"new trap, {number(trap.strength)} times the random edge (z = {number(trap.z)}): "
        f"{cause_words(trap.cause)}; the base has {_count(was)}, this has {_count(now)}",
        cause=cause_name(trap.cause),
        now=float(now.count),
        base=float(was.count),
        severity=trap.z,
    )


def _counted(matrix: Matrix, now: Traps, was: Traps) -> Violation:
    return Violation(
        id=matrix.id,
        tensor=matrix.tensor,
        message=f"more traps in every shuffle than the base in any: {_count(was)} before, {_count(now)} now",
        cause="count",
        now=float(now.count),
        base=float(was.count),
        severity=now.top_z or 0.0,
    )


def _count(traps: Traps) -> str:
    spread = f" ({traps.low} to {traps.high} over the shuffles)" if traps.low != traps.high else ""
    return ("no trap" if traps.count == 0 else plural(traps.count, "trap")) + spread


RULE = Rule(
    id="LT001",
    name="new-trap",
    title="A matrix has a Correlation Trap that its base does not have",
    settings=NewTrap,
    check=of_pairs(check),
)
