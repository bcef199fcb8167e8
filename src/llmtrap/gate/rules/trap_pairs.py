"""Which trap of the target is which of the base: by cause, and by strength where the cause has no address."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.gate.matching import Pair
from llmtrap.report.document import Cause, Trap, Traps

# A trap's cause may be named otherwise after a small change (heavy tail or one entry of it): if it is about as strong
# as one of the base that has lost its match, it is the same trap.
ALIKE = 1.25


@dataclass(frozen=True)
class TrapPairs:
    """Traps of the first shuffle, or predicted ones, matched: `same` as (now, base), `new` without a match."""

    same: tuple[tuple[Trap, Trap], ...]
    new: tuple[Trap, ...]


def decided(pair: Pair) -> tuple[Traps, Traps] | None:
    """The trap counts of both sides, where both were decided and are reliable."""
    if pair.now is None or pair.base is None:
        return None
    now, was = pair.now.traps, pair.base.traps
    if now is None or was is None or "undecided" in (now.method, was.method):
        return None
    if now.rule != was.rule or not (now.reliable and was.reliable):
        return None
    return now, was


def match_traps(now: Traps, was: Traps) -> TrapPairs:
    """Match the traps of two sides.

    An entry is matched by its row and column; a mean shift or heavy tail with the strongest of its kind. What is left
    is matched with a trap of about its strength, where either of the two is a heavy tail.
    """
    left = sorted(was.found, key=lambda trap: -trap.strength)
    same: list[tuple[Trap, Trap]] = []
    new: list[Trap] = []
    for trap in sorted(now.found, key=lambda trap: -trap.strength):
        twin = next((other for other in left if _address(other.cause) == _address(trap.cause)), None)
        if twin is None:
            new.append(trap)
        else:
            left.remove(twin)
            same.append((trap, twin))
    for trap in list(new):
        twin = next((other for other in left if _renamed(trap, other)), None)
        if twin is not None:
            left.remove(twin)
            new.remove(trap)
            same.append((trap, twin))
    return TrapPairs(tuple(same), tuple(new))


def cause_name(cause: Cause) -> str:
    """The cause as a fingerprint holds it: its kind, and the place of an entry."""
    return cause.kind if cause.row is None else f"{cause.kind}:{cause.row}:{cause.column}"


def cause_words(cause: Cause) -> str:
    """The cause in words, with the entry's place and size."""
    if cause.kind == "mean_shift":
        return "the mean of all entries moved off zero"
    if cause.kind == "heavy_tail" or cause.row is None or cause.column is None:
        return "many moderately large entries (a heavy tail)"
    size = f", {abs(cause.sigmas):.3g} standard deviations from the mean" if cause.sigmas is not None else ""
    return f"the entry at row {cause.row:,}, column {cause.column:,}{size}"


def _address(cause: Cause) -> tuple[str, int | None, int | None]:
    return cause.kind, cause.row, cause.column


def _renamed(now: Trap, was: Trap) -> bool:
    if "heavy_tail" not in (now.cause.kind, was.cause.kind) or "mean_shift" in (now.cause.kind, was.cause.kind):
        return False
    return now.strength <= was.strength * ALIKE
