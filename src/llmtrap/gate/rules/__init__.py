"""The rules, in a table: adding one is adding a file (or an entry) and a line here."""

from __future__ import annotations

from llmtrap.gate.rules import (
    alpha,
    coverage,
    edits,
    max_traps,
    new_trap,
    non_finite,
    other_tensors,
    size,
    structure,
    whole_checkpoint,
    worse_trap,
)
from llmtrap.gate.rules.base import CHECKPOINT, NotJudged, Rule, RuleSettings, Violation

__all__ = ["CHECKPOINT", "COVERAGE", "RULES", "NotJudged", "Rule", "RuleSettings", "Violation"]

COVERAGE = coverage.RULE.id

RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in (
        new_trap.RULE,
        worse_trap.RULE,
        alpha.LT003,
        alpha.LT004,
        non_finite.RULE,
        coverage.RULE,
        structure.LT007,
        structure.LT008,
        size.LT009,
        size.LT010,
        max_traps.RULE,
        other_tensors.RULE,
        edits.LT013,
        edits.LT014,
        whole_checkpoint.LT015,
        whole_checkpoint.LT016,
    )
}
