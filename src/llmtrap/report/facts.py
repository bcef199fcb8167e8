"""What a document says, as predicates and counts: the one place where every output learns which matrix is worse."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmtrap.report.document import Matrix
from llmtrap.spectra.measured import CauseKind, Trap

# A matrix without a trap whose largest eigenvalue came this near the edge in some shuffle, in Tracy-Widom units, is
# shown as lying at the edge: of matrices without traps one in many thousands does by chance.
AT_EDGE_WITHIN = 2.0

_BEFORE_LAYERS = re.compile(r"(?P<block>.*?)[./]?(?<![^./])layers\.\d")

State = Literal["non_finite", "trapped", "unreliable", "edge", "mean_shift", "free", "undecided", "none"]


def state(matrix: Matrix) -> State:
    """What a matrix is, in one word, as far as its traps go.

    trapped: centred traps in every shuffle and a reliable count; unreliable: the same in a matrix too small to trust
    the count; edge: it depends on the shuffle whether a trap shows; mean_shift: only traps that vanish with the mean;
    free: none; undecided: the entries alone did not decide and no shuffle was made; none: traps were not looked for.
    """
    if matrix.non_finite is not None:
        return "non_finite"
    traps = matrix.traps
    if traps is None:
        return "none"
    if traps.method == "undecided":
        return "undecided"
    if is_certain(matrix):
        return "trapped" if traps.reliable else "unreliable"
    if is_at_edge(matrix):
        return "edge"
    return "mean_shift" if traps.mean_shift > 0 else "free"


def is_certain(matrix: Matrix) -> bool:
    """Whether every shuffle shows a centred trap; of an older report, whether every one shows a trap and most this."""
    traps = matrix.traps
    if traps is None or traps.method == "undecided":
        return False
    return traps.centred > 0 and (traps.low if traps.centred_low is None else traps.centred_low) > 0


def is_uncertain(matrix: Matrix) -> bool:
    """Whether some shuffles show a centred trap and some none."""
    traps = matrix.traps
    if traps is None or traps.method != "measured" or is_certain(matrix):
        return False
    return traps.centred > 0 or bool(traps.centred_high)


def is_at_edge(matrix: Matrix) -> bool:
    """Whether the shuffle decides: some show a trap and some none, or come within a hair of the edge."""
    traps = matrix.traps
    if traps is None or traps.method != "measured":
        return False
    if traps.low == 0 < traps.high or is_uncertain(matrix):
        return True
    if traps.edge_z is None or traps.top_z_low is None or traps.top_z_high is None:
        return False
    return traps.top_z_low < traps.edge_z <= traps.top_z_high + AT_EDGE_WITHIN


def is_decided(matrix: Matrix) -> bool:
    """Whether it is known if the matrix has traps."""
    return matrix.traps is not None and matrix.traps.method != "undecided"


def strongest(matrix: Matrix) -> Trap | None:
    """The strongest centred trap that was found; without one, the strongest of any cause; None where there is none."""
    found = matrix.traps.found if matrix.traps is not None else ()
    centred = [trap for trap in found if trap.cause.kind != "mean_shift"]
    return max(centred or found, key=lambda trap: trap.strength, default=None)


def main_cause(matrix: Matrix) -> CauseKind | None:
    """The cause of the strongest trap."""
    trap = strongest(matrix)
    return None if trap is None else trap.cause.kind


def kind(matrix: Matrix) -> str:
    """The module kind: the id without its numbers, so that layers and experts of one kind share it."""
    parts = [part for part in matrix.id.split(".") if not part.isdecimal()]
    if len(parts) > 1 and parts[0] == "layers":
        parts = parts[1:]
    return ".".join(parts) or matrix.role


def block(matrix: Matrix) -> str:
    """Whose layers a layer's number counts: the part of the model, or one tower of it, as the id begins."""
    found = _BEFORE_LAYERS.match(matrix.id)
    return (found["block"] if found else "") or matrix.part


_ORDER: dict[State, int] = {
    "non_finite": 0,
    "trapped": 1,
    "unreliable": 3,
    "edge": 3,
    "undecided": 4,
    "mean_shift": 5,
    "free": 5,
    "none": 5,
}


def badness(matrix: Matrix) -> tuple[float, ...]:
    """A sort key, worst first: broken values, traps by strength, over-trained by alpha, doubtful cases, the rest."""
    what = state(matrix)
    trap = strongest(matrix)
    strength = trap.strength if trap is not None else 0.0
    alpha = matrix.alpha
    value = alpha.value if alpha is not None and alpha.reliable and alpha.value is not None else math.inf
    place = 0 if matrix.all_zero else _ORDER[what]
    if place > 2 and value < 2:
        place = 2
    return (place, value if place == 2 else -strength, value)


def worst(matrices: Iterable[Matrix], limit: int | None = None) -> list[Matrix]:
    """Matrices, worst first; equal ones in the document's order."""
    return sorted(matrices, key=badness)[:limit]


def is_notable(matrix: Matrix) -> bool:
    """Whether a matrix has something a reader should look at."""
    over = matrix.alpha is not None and matrix.alpha.reliable and matrix.alpha.band == "over"
    return over or matrix.all_zero or state(matrix) in {"non_finite", "trapped", "unreliable", "edge"}


@dataclass(frozen=True)
class Tally:
    """Matrices counted by state and by cause."""

    matrices: int
    states: Counter[State]
    causes: Counter[CauseKind | None]
    traps: int
    mean_shifts: int
    with_mean_shift: int
    uncertain: int
    all_zero: int
    decided: int
    certified: int
    predicted: int
    measured: int
    over: int
    well: int
    under: int
    random: int
    unreliable_alpha: int

    @property
    def trapped(self) -> int:
        """Matrices with a centred trap in every shuffle and a reliable count."""
        return self.states["trapped"]

    @property
    def left_to_chance(self) -> int:
        """Decided matrices of which chance may tell the wrong thing. Predicted traps are there in every shuffle."""
        return self.certified + self.measured


def tally(matrices: Iterable[Matrix]) -> Tally:
    """Count what the matrices say; `causes` counts each trapped matrix once, under its strongest centred trap."""
    states: Counter[State] = Counter()
    causes: Counter[CauseKind | None] = Counter()
    methods: Counter[str] = Counter()
    bands: Counter[str] = Counter()
    traps = shifts = with_shift = uncertain = zero = 0
    for matrix in matrices:
        what = state(matrix)
        states[what] += 1
        uncertain += is_uncertain(matrix) and matrix.traps is not None and matrix.traps.reliable
        zero += matrix.all_zero
        if matrix.traps is not None:
            methods[matrix.traps.method] += 1
            if matrix.traps.reliable:
                traps += matrix.traps.centred
                shifts += matrix.traps.mean_shift
                with_shift += matrix.traps.mean_shift > 0
        if what == "trapped":
            trap = strongest(matrix)
            causes[None if trap is None or trap.cause.kind == "mean_shift" else trap.cause.kind] += 1
        if matrix.alpha is not None:
            bands[matrix.alpha.band or "unreliable"] += 1
    return Tally(
        matrices=states.total(),
        states=states,
        causes=causes,
        traps=traps,
        mean_shifts=shifts,
        with_mean_shift=with_shift,
        uncertain=uncertain,
        all_zero=zero,
        decided=methods["certified"] + methods["predicted"] + methods["measured"],
        certified=methods["certified"],
        predicted=methods["predicted"],
        measured=methods["measured"],
        over=bands["over"],
        well=bands["well"],
        under=bands["under"],
        random=bands["random"],
        unreliable_alpha=bands["unreliable"],
    )
