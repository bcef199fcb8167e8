"""Rules that could not look at a matrix, or at the checkpoint: what is not judged has not passed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from llmtrap.gate import document
from llmtrap.gate.matching import MatchedSides
from llmtrap.gate.policy import Ignore, Policy
from llmtrap.gate.rules import RULES, NotJudged
from llmtrap.gate.rules.coverage import gaps_of

MOST_NAMED = 10


@dataclass(frozen=True)
class Gap:
    """A rule that could not look at something; `blocking` as in the document."""

    rule: str
    level: document.Level
    item: NotJudged
    blocking: bool


def grouped(gaps: Iterable[Gap], ignores: Iterable[Ignore], today: datetime.date) -> list[document.NotJudged]:
    """One line for each rule and reason, what no ignore covers first."""
    groups: dict[tuple[str, str, bool, str | None], list[Gap]] = {}
    held = [ignore for ignore in ignores if ignore.expires is None or ignore.expires >= today]
    for gap in gaps:
        ignored = next((ignore.reason for ignore in held if ignore.means(gap.rule, gap.item.id)), None)
        groups.setdefault((gap.rule, gap.item.reason, gap.blocking, ignored), []).append(gap)
    found = [
        document.NotJudged(
            rule=rule,
            name=RULES[rule].name,
            level=group[0].level,
            reason=reason,
            matrices=len({gap.item.id for gap in group if gap.item.id is not None}),
            ids=tuple(dict.fromkeys(gap.item.id for gap in group if gap.item.id is not None))[:MOST_NAMED],
            kinds=tuple(sorted({gap.item.kind for gap in group})),
            blocking=blocking,
            ignored=ignored,
        )
        for (rule, reason, blocking, ignored), group in groups.items()
    ]
    return sorted(found, key=lambda it: (it.ignored is not None, not it.blocking, it.level != "error", it.rule))


def unmeasured(matched: MatchedSides, policy: Policy) -> list[Gap]:
    """Matrices of which too little is known, for every rule that looks at matrices. How many may be so is LT006's."""
    rules = [(rule.id, policy.settings(rule.id).level) for rule in RULES.values() if rule.scope == "matrix"]
    return [
        Gap(rule, level, NotJudged(gap.id, gap.message.removeprefix("not judged: ")), blocking=False)
        for gap in gaps_of(matched)
        for rule, level in rules
        if level != "off"
    ]
