"""Which traps of a matrix are new, stronger, weaker or gone against its base: the one module that decides it.

An entry or a mean is *inherited* where the base's own value is about as far from the bulk, whether or not the base's
shuffles made a trap of it: a value near the limit shows in some shuffles and not in others. What has no such value (a
heavy tail) is matched by its strength.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmtrap.report.document import Matrix
from llmtrap.spectra.certificate import predicted_outlier
from llmtrap.spectra.measured import Cause, Trap, Traps
from llmtrap.spectra.tracy_widom import EdgeLaw, quantile_of_survival
from llmtrap.spectra.traps import FALSE_ALARM, edge_z

ValuesAt = Mapping[tuple[int, int], float]
"""Values of the other side's matrix, by row and column."""

State = Literal["new", "stronger", "weaker", "gone", "same"]

# A value is inherited where the base's is at least this much as far from the mean, in deviations of each bulk.
INHERITED = 1 / 1.1
# A trap without an address may be named otherwise after a small change (a heavy tail, or one entry of it): it is the
# same where it is not this much stronger than the base's.
ALIKE = 1.25


@dataclass(frozen=True)
class Tolerances:
    """What counts as a change. `margin`, `least_rise` and `chance_z` are in Tracy–Widom units.

    Attributes:
        margin: how far beyond the edge a new cause must stand.
        chance_z: and at least here, so that chance does not reach it over the whole audit.
        stronger_by: growth of a trap's strength, as a share, beyond which it is stronger.
        least_rise: and at least so much.
    """

    margin: float = 3.0
    chance_z: float = quantile_of_survival(FALSE_ALARM)
    stronger_by: float = 0.25
    least_rise: float = 3.0


@dataclass(frozen=True)
class TrapChanges:
    """The traps of both sides, told apart.

    Attributes:
        new: traps that the base does not have.
        counted: more traps than the base in every shuffle, and none that could be named for it.
        stronger: (now, in the base).
        weaker: (now, in the base).
        gone: traps of the base that this matrix does not have.
        open: traps that the base may have too: its report does not hold the value at their place.
    """

    new: tuple[Trap, ...] = ()
    counted: bool = False
    stronger: tuple[tuple[Trap, Trap], ...] = ()
    weaker: tuple[tuple[Trap, Trap], ...] = ()
    gone: tuple[Trap, ...] = ()
    fewer: bool = False
    open: tuple[Trap, ...] = ()

    @property
    def state(self) -> State:
        """The gravest change."""
        if self.new or self.counted:
            return "new"
        if self.stronger:
            return "stronger"
        if self.gone or self.fewer:
            return "gone"
        return "weaker" if self.weaker else "same"


def comparable_traps(now: Matrix | None, base: Matrix | None) -> tuple[Traps, Traps] | None:
    """The traps of both sides, where both were decided by one rule and their counts are reliable."""
    if now is None or base is None or now.traps is None or base.traps is None:
        return None
    mine, theirs = now.traps, base.traps
    if "undecided" in (mine.method, theirs.method) or mine.rule != theirs.rule:
        return None
    return (mine, theirs) if mine.reliable and theirs.reliable else None


def compare_traps(
    now: Matrix,
    base: Matrix,
    base_at: ValuesAt | None = None,
    now_at: ValuesAt | None = None,
    tolerances: Tolerances | None = None,
) -> TrapChanges | None:
    """Tell the traps of a matrix and of its base apart.

    Args:
        now: the matrix.
        base: the same matrix of the base.
        base_at: the base's values where `now` has entry traps; None where only reports are at hand.
        now_at: the matrix's values where the base has entry traps.
        tolerances: what counts as a change.

    Returns:
        None where the traps of a side were not decided, or cannot be compared.
    """
    known = comparable_traps(now, base)
    if known is None:
        return None
    limits = tolerances or Tolerances()
    pairs = _same_cause(*known)
    new, counted, open_ = _fresh(now, base, [now_ for now_, _ in pairs], base_at, limits)
    gone, fewer, _ = _fresh(base, now, [was for _, was in pairs], now_at, limits)
    return TrapChanges(
        new=tuple(new),
        counted=counted,
        stronger=tuple(pair for pair in pairs if _grew(*pair, base, limits, base_at)),
        weaker=tuple(pair for pair in pairs if _grew(pair[1], pair[0], now, limits, now_at)),
        gone=tuple(gone),
        fewer=fewer,
        open=tuple(open_),
    )


def _same_cause(now: Traps, was: Traps) -> list[tuple[Trap, Trap]]:
    """Match an entry by its place, a mean shift or heavy tail by its kind and rank, and then what was only renamed."""
    left = sorted(was.found, key=lambda trap: -trap.strength)
    rest: list[Trap] = []
    same: list[tuple[Trap, Trap]] = []
    for trap in sorted(now.found, key=lambda trap: -trap.strength):
        twin = next((other for other in left if _address(other.cause) == _address(trap.cause)), None)
        if twin is None:
            rest.append(trap)
        else:
            left.remove(twin)
            same.append((trap, twin))
    for trap in rest:
        twin = next((other for other in left if _renamed(trap, other)), None)
        if twin is not None:
            left.remove(twin)
            same.append((trap, twin))
    return same


def _fresh(
    now: Matrix, base: Matrix, matched: list[Trap], at: ValuesAt | None, limits: Tolerances
) -> tuple[list[Trap], bool, list[Trap]]:
    """Traps of `now` that `base` has not; whether there are more beyond those named; and those left open."""
    mine, theirs = now.traps, base.traps
    assert mine is not None  # noqa: S101 - the caller looked
    assert theirs is not None  # noqa: S101
    ordered = sorted(mine.found, key=lambda trap: -trap.strength)
    unmatched = [trap for trap in ordered if not any(trap is other for other in matched)]
    unmatched = [trap for trap in unmatched if not _inherited(trap, mine, theirs, at)]
    open_ = [trap for trap in unmatched if at is None and _may_be_there(trap, theirs)]
    needed = max(limits.chance_z, edge_z(mine.rule, now.shape) + limits.margin)
    in_most = {id(trap) for trap in ordered[: mine.count]}
    clear = [
        trap for trap in unmatched
        if trap.z >= needed and id(trap) in in_most and _shows(trap, now) and _beyond_the_tail(trap, base)
    ]  # fmt: skip
    # One shuffle may show a trap by chance; several, or the proof that all do, may not.
    sure = mine.shuffles > 1 or mine.method == "predicted" or any(trap.z >= limits.chance_z for trap in ordered)
    if clear or not (mine.low > theirs.high and sure):
        named = [trap for trap in clear if not any(trap is other for other in open_)]
        return named, False, [trap for trap in clear if any(trap is other for other in open_)]
    if unmatched:
        return unmatched, False, []
    # All traps that were described are the base's too. There are more only where not all were described.
    return [], len(ordered) < mine.low, []


def _inherited(trap: Trap, now: Traps, base: Traps, at: ValuesAt | None) -> bool:
    """Whether the base's own value explains the trap."""
    if at is None:
        return False
    if trap.cause.kind == "mean_shift":
        return _as_far(_in_deviations(now.mean, 0.0, now), _in_deviations(base.mean, 0.0, base))
    if trap.cause.kind != "entry" or trap.cause.row is None or trap.cause.column is None:
        return False
    there = at.get((trap.cause.row, trap.cause.column))
    return _as_far(trap.cause.sigmas, _in_deviations(there, base.mean, base))


def _as_far(now: float | None, base: float | None) -> bool:
    """Whether the base's value is about as far from the mean, on the same side."""
    return now is not None and base is not None and base * now > 0 and abs(base) >= INHERITED * abs(now)


def _in_deviations(value: float | None, centre: float | None, of: Traps) -> float | None:
    if value is None or centre is None or not of.bulk_variance:
        return None
    return float((value - centre) / of.bulk_variance**0.5)


def _may_be_there(trap: Trap, base: Traps) -> bool:
    """Whether the base may hold this entry unnamed: not all its traps were named, and it has an entry as far."""
    if trap.cause.kind != "entry" or trap.cause.sigmas is None or base.max_sigmas is None:
        return False
    return len(base.found) < base.high and base.max_sigmas >= INHERITED * abs(trap.cause.sigmas)


def _shows(trap: Trap, matrix: Matrix) -> bool:
    """Whether an entry of this size stands beyond the edge by itself, as it does in most shuffles.

    In one shuffle it may be lifted by another that fell into its row or column (Benaych-Georges & Nadakuditi 2012).
    """
    if trap.cause.kind != "entry" or trap.cause.sigmas is None:
        return True
    n, m = max(matrix.shape), min(matrix.shape)
    traps = matrix.traps
    assert traps is not None  # noqa: S101 - the trap is one of them
    value = n * predicted_outlier(max(trap.cause.sigmas**2 / n, (m / n) ** 0.5), m / n)
    return EdgeLaw.of(n, m).z(value) >= edge_z(traps.rule, matrix.shape)


def _beyond_the_tail(trap: Trap, base: Matrix) -> bool:
    """Whether a heavy tail's trap is stronger than the base's largest eigenvalue of any shuffle, trap or not."""
    return trap.cause.kind != "heavy_tail" or trap.strength > ALIKE * _top_strength(base)


def _top_strength(matrix: Matrix) -> float:
    traps = matrix.traps
    law = EdgeLaw.of(*matrix.shape)
    if traps is None or traps.top_z is None:
        return 1.0
    return law.eigenvalue(max(traps.top_z, traps.top_z_high or traps.top_z)) / law.centre


def _grew(now: Trap, was: Trap, base: Matrix, limits: Tolerances, at: ValuesAt | None) -> bool:
    """Whether a matched trap's strength grew by more than the tolerance, and by more than shuffles differ.

    Where the weights are at hand, an entry that is as far as it was has not grown: another fell into its row.
    """
    before, allowed = was.strength, 1 + limits.stronger_by
    if now.cause.kind == "heavy_tail":
        before = max(before, _top_strength(base))
    if now.strength <= before * allowed or now.z - was.z <= limits.least_rise:
        return False
    return at is None or now.cause.kind != "entry" or not _as_far(now.cause.sigmas, was.cause.sigmas)


def _address(cause: Cause) -> tuple[str, int | None, int | None]:
    return cause.kind, cause.row, cause.column


def _renamed(now: Trap, was: Trap) -> bool:
    if "heavy_tail" not in (now.cause.kind, was.cause.kind) or "mean_shift" in (now.cause.kind, was.cause.kind):
        return False
    return now.strength <= was.strength * ALIKE
