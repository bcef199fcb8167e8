"""What a rule is: a stable id, its settings, and a pure function from two matched sides to violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmtrap.gate.document import Chance, Level
from llmtrap.gate.matching import MatchedSides, Pair, module_kind

CHECKPOINT = "checkpoint"
"""The `kind` of an objection to the checkpoint as a whole."""


class RuleSettings(BaseModel):
    """What every rule can be told; subclasses add their numbers. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    level: Level = Field(default="error", description="error fails the gate, warn is only said, off is not looked for")


@dataclass(frozen=True)
class Violation:
    """One objection.

    `cause` tells apart two objections of one rule to one matrix. It must not hold measured numbers, since it is part of
    what recognises the same objection in the next run. `only_warn` keeps one below an error, whatever the rule's level.
    """

    id: str | None
    tensor: str | None
    message: str
    cause: str = ""
    now: float | None = None
    base: float | None = None
    severity: float = 0.0
    only_warn: bool = False

    @property
    def kind(self) -> str:
        """The module kind, or `checkpoint`."""
        return CHECKPOINT if self.id is None else module_kind(self.id)


@dataclass(frozen=True)
class NotJudged:
    """A rule could not look at a matrix (or, without an id, at the checkpoint): it did not pass."""

    id: str | None
    reason: str

    @property
    def kind(self) -> str:
        """The module kind, or `checkpoint`."""
        return CHECKPOINT if self.id is None else module_kind(self.id)


Check = Callable[[MatchedSides, Any, Chance], Iterator["Violation | NotJudged"]]


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        id: stable; policies and ignores name it.
        name: the same in words.
        title: what it objects to, as one sentence.
        settings: the type of its settings, whose defaults are the default policy.
        check: finds the violations.
        scope: whether it looks at matrices, or at the checkpoint as a whole.
    """

    id: str
    name: str
    title: str
    settings: type[RuleSettings]
    check: Check
    scope: Literal["matrix", "checkpoint"] = "matrix"


PairCheck = Callable[[Pair, Any, Chance], Iterator["Violation | NotJudged"]]


NO_WEIGHTS = "a report does not hold the change ΔW of a matrix: give the weights of both sides"


def missing_update(pair: Pair) -> NotJudged | None:
    """Why a measured pair has no ΔW to look at; None where it has, and where other rules judge what it lacks."""
    if pair.update is not None or pair.now is None or pair.base is None or pair.reshaped:
        return None
    if pair.now.non_finite is not None or pair.base.non_finite is not None:
        return None
    if pair.base_at is None:
        return NotJudged(pair.it.id, NO_WEIGHTS)
    return NotJudged(pair.it.id, "the entries of the two sides could not be compared")


def of_pairs(check: PairCheck) -> Check:
    """A rule that looks at each changed pair alone: what is unchanged cannot be new or worse."""

    def over_pairs(matched: MatchedSides, settings: RuleSettings, chance: Chance) -> Iterator[Violation | NotJudged]:
        for pair in matched.changed:
            yield from check(pair, settings, chance)

    return over_pairs
