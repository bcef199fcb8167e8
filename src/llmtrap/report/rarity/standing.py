"""Where a value stands among published models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from llmtrap.report.document import Rarity
from llmtrap.report.rarity.measures import Measure
from llmtrap.report.rarity.reference import FEWEST_LINEAGES, PublishedModel, Reference, Role, Spread

_AT_5, _AT_50, _AT_95 = 1, 3, 5  # places in `reference.QUANTILES`

Which = Literal["value", "apart", "below"]
"""What of a measure is compared: its greatest value, or how far it departs from its peers, up or down."""


@dataclass(frozen=True)
class Range:
    """The farthest that each lineage goes in one measure."""

    farthest: tuple[float, ...]
    of_any_role: bool = False  # since too few have the role

    @property
    def greatest(self) -> float:
        """The farthest of all."""
        return max(self.farthest)

    def rarity(self, value: float) -> Rarity:
        """How many go as far as this value."""
        return Rarity(alike=sum(other >= value for other in self.farthest), models=len(self.farthest))


class Standing:
    """A reference that is asked many times; `fewest` lineages must have a role for it to be known."""

    def __init__(self, reference: Reference, fewest: int = FEWEST_LINEAGES):
        self._models = reference.models
        self._fewest = fewest
        self._known: dict[tuple[str, Measure, Which, bool], Range | None] = {}

    def of(self, role: str, measure: Measure, which: Which = "value", *, in_layers: bool = True) -> Range | None:
        """How far each lineage goes, over the matrices of a role.

        Where fewer than `fewest` have the role, all matrices of their layers count; None where that is too few as
        well, and for a role outside the layers that too few have.
        """
        key = (role, measure, which, in_layers)
        if key not in self._known:
            self._known[key] = self._range(*key)
        return self._known[key]

    def middle(self, role: str, measure: Measure) -> tuple[float, float, float] | None:
        """Least, middle and greatest of a role, but for the outer twentieths of each lineage's matrices.

        None where fewer than `fewest` have the role inside their layers.
        """
        held = {
            model.lineage: found.measures[measure].quantiles
            for model in self._models
            for found in model.roles
            if found.role == role and found.in_layers and measure in found.measures
        }
        if len(held) < self._fewest:
            return None
        low, middle, high = zip(*((q[_AT_5], q[_AT_50], q[_AT_95]) for q in held.values()), strict=True)
        return min(low), median(middle), max(high)

    def shares(self, get: Callable[[PublishedModel], float]) -> Range:
        """The greatest share, as `get` computes it of a model, in each lineage."""
        return Range(_by_lineage((model.lineage, get(model)) for model in self._models))

    def _range(self, role: str, measure: Measure, which: Which, in_layers: bool) -> Range | None:
        own = self._farthest(measure, which, lambda held: held.role == role and held.in_layers == in_layers)
        if len(own) < self._fewest and in_layers:
            every = self._farthest(measure, which, lambda held: held.in_layers)
            return Range(every, of_any_role=True) if len(every) >= self._fewest else None
        return Range(own) if len(own) >= self._fewest else None

    def _farthest(self, measure: Measure, which: Which, wanted: Callable[[Role], bool]) -> tuple[float, ...]:
        return _by_lineage(
            (model.lineage, value)
            for model in self._models
            for role in model.roles
            if wanted(role) and measure in role.measures
            if (value := farthest(role.measures[measure], which)) is not None
        )


def farthest(spread: Spread, which: Which) -> float | None:
    """The farthest of a spread: its greatest value, or how far it departs from its peers; None with too few."""
    if which == "value":
        return spread.quantiles[-1]
    return spread.apart if which == "apart" else spread.below


def _by_lineage(values: Iterable[tuple[str, float]]) -> tuple[float, ...]:
    farthest: dict[str, float] = {}
    for lineage, value in values:
        farthest[lineage] = max(value, farthest.get(lineage, value))
    return tuple(farthest.values())
