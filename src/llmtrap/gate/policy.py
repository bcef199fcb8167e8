"""The policy: which rules apply with which numbers, and which known findings are let through until when."""

from __future__ import annotations

import datetime
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmtrap.checkpoint.selection import part_of_id, selects
from llmtrap.gate.rules import CHECKPOINT, RULES, RuleSettings


class Part(BaseModel):
    """Base of every part of a policy: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Ignore(Part):
    """A known finding that does not fail the gate: one `[[ignore]]` of the policy."""

    rule: str
    match: str = Field(
        min_length=1, description="glob on the matrix id, or part=NAME; the checkpoint as a whole is 'checkpoint'"
    )
    reason: str = Field(min_length=1, description="why this is no problem, for whoever reads it next")
    expires: datetime.date | None = Field(default=None, description="ISO date; the last day on which it holds")

    def means(self, rule: str, identity: str | None) -> bool:
        """Whether it is of this rule and this matrix; None is the checkpoint as a whole, which is of no part."""
        if rule != self.rule or identity is None:
            return rule == self.rule and fnmatchcase(CHECKPOINT, self.match)
        return selects(self.match, (identity,), part_of_id(identity))

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"there is no rule {rule!r}; the rules are {', '.join(RULES)}")
        return rule


class Gate(Part):
    """The `[gate]` table."""

    baseline: str | None = Field(default=None, description="what to judge against where --baseline is not given")
    # Of much smaller ones no limit of a test is a number any more.
    false_alarms: float = Field(
        default=0.01,
        ge=1e-9,
        le=1,
        description="the most false alarms to expect of an unharmed fine-tune, over the audit",
    )
    rules: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @field_validator("rules")
    @classmethod
    def _settings(cls, rules: dict[str, Any]) -> dict[str, RuleSettings]:
        """Every rule's settings, the default ones where the policy says nothing."""
        return {name: rule.settings.model_validate(rules.get(name, {})) for name, rule in RULES.items()}


class Policy(Part):
    """A whole policy; `Policy()` is the default one."""

    gate: Gate = Field(default_factory=Gate)
    ignore: tuple[Ignore, ...] = ()

    def settings(self, rule: str) -> RuleSettings:
        """What this policy says of a rule."""
        settings: RuleSettings = self.gate.rules[rule]
        return settings
