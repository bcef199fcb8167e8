"""LT001: a matrix has a Correlation Trap that its base does not have."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.rules.trap_pairs import cause_name, cause_words, decided, match_traps
from llmtrap.report.document import Matrix, Trap, Traps
from llmtrap.report.wording import number, plural
from llmtrap.spectra.traps import edge_z


class NewTrap(RuleSettings):
    """When a trap counts as new."""

    margin: float = Field(
        default=3.0, ge=0, description="how far beyond the edge a new cause must stand, in Tracy-Widom units"
    )


def check(pair: Pair, settings: NewTrap, chance: Chance) -> Iterator[Violation]:
    """More traps than the base in every shuffle, made or predicted, or one of another cause well beyond the edge."""
    known = decided(pair)
    if known is None or pair.now is None:
        return
    now, was = known
    fresh = match_traps(now, was).new
    needed = max(chance.trap_z, edge_z(now.rule, pair.now.shape) + settings.margin)
    clear = [trap for trap in fresh if trap.z >= needed]
    # One shuffle may show a trap by chance; several, or the proof that all do, may not.
    sure = now.shuffles > 1 or now.method == "predicted" or any(trap.z >= chance.trap_z for trap in now.found)
    more = now.low > was.high and sure
    if more and not clear:
        # More than before, and no single cause stands out: name those that have no match, or the strongest.
        clear = list(fresh) or sorted(now.found, key=lambda trap: -trap.strength)[: now.low - was.high]
    if not clear:
        if more:
            yield _counted(pair.now, now, was)
        return
    for trap in clear:
        yield _violation(pair.now, trap, now, was)


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
