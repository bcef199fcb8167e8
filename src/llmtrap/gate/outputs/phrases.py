"""Words that several outputs share: where a finding is, and what the audit rests on."""

from __future__ import annotations

from llmtrap.gate.document import Finding, Judgement, NotJudged
from llmtrap.gate.policy_file import OWN_FILE
from llmtrap.gate.rules import CHECKPOINT
from llmtrap.report.formatting import number, plural, printable

NAME_LENGTH = 160


def place(finding: Finding) -> str:
    """The matrix, or `checkpoint`; names come from files, so they are made safe to show."""
    return CHECKPOINT if finding.id is None else printable(finding.id, NAME_LENGTH)


def sentence(finding: Finding) -> str:
    """`layers.3.mlp.down: new trap, …`."""
    return f"{place(finding)}: {printable(finding.message)}"


def gap_words(item: NotJudged) -> str:
    """`3 matrices: a report does not hold …`, with the first names."""
    where = CHECKPOINT
    if item.matrices:
        names = ", ".join(printable(name, 80) for name in item.ids[:3])
        where = f"{plural(item.matrices, 'matrix')} ({names}{', …' if item.matrices > 3 else ''})"
    return f"{where}: {printable(item.reason)}"


def policy_path(judgement: Judgement) -> str:
    """The policy file as a path within the repository, for outputs that must point at a file."""
    path = judgement.policy.path or OWN_FILE
    return path.replace("\\", "/").removeprefix("./")


def line_of(judgement: Judgement, rule: str) -> int:
    """Where the policy file sets a rule."""
    return next((applied.line for applied in judgement.rules if applied.id == rule), 1)


def facts(judgement: Judgement) -> list[tuple[str, str]]:
    """What the judgement rests on, as label and words."""
    counts, chance = judgement.counts, judgement.chance
    rows = [("target", _side(judgement.target.name, judgement.target.revision))]
    if judgement.base is not None:
        rows.append(("base", _side(judgement.base.name, judgement.base.revision)))
    else:
        rows.append(("base", "none: judged by absolute rules alone; name one with --baseline to see what is new"))
    rows.append(("policy", _policy(judgement)))
    aside = ", ".join(
        f"{count:,} {words}"
        for count, words in (
            (counts.too_small, "too small for a count of traps"),
            (counts.without_alpha, "without a reliable α on both sides"),
        )
        if count
    )
    parts = [f"{counts.measured:,} judged on measurements" + (f" ({aside})" if aside else "")]
    for count, words in (
        (counts.unchanged, "unchanged byte for byte"),
        (counts.added, "added"),
        (counts.reshaped, "of another shape"),
        (counts.not_compared, "not measured in the base"),
        (counts.failed, "not measured"),
    ):
        if count:
            parts.append(f"{count:,} {words}")
    missing = f"; beside them {counts.missing:,} of the base missing" if counts.missing else ""
    rows.append(("matrices", f"{counts.matrices:,}: {', '.join(parts)}{missing}"))
    tests = f"{plural(chance.trap_tests, 'test')} for traps, {chance.alpha_tests:,} of α"
    expected = f"at most {number(chance.expected, 2)} by chance over the audit ({tests}"
    if chance.alpha_tests:
        expected += f" at {number(chance.alpha_sigmas)} standard errors"
    rows.append(("false alarms", f"{expected})"))
    return rows


def _policy(judgement: Judgement) -> str:
    path = judgement.policy.path
    return "built in (llmtrap gate --init writes it out)" if path is None else printable(path, NAME_LENGTH)


def _side(name: str, revision: str | None) -> str:
    return printable(name, NAME_LENGTH) + (f" at {printable(revision, 60)}" if revision else "")
