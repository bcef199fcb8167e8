"""The judgement: rules over matched sides, ignores, and the outcome. Pure: documents in, a document out."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from llmtrap.audit.report import TOOL
from llmtrap.gate import document
from llmtrap.gate.chance import chance_of, comparable_alpha
from llmtrap.gate.matching import Described, Matched, Pair
from llmtrap.gate.policy import Ignore
from llmtrap.gate.policy_file import LoadedPolicy
from llmtrap.gate.rules import CHECKPOINT, COVERAGE, RULES, Violation
from llmtrap.gate.rules.structure import tensor_notes
from llmtrap.report.wording import plural, printable

EXIT_CODES: dict[document.Outcome, int] = {"passed": 0, "violated": 1, "incomplete": 3}


def judge(matched: Matched, loaded: LoadedPolicy, today: datetime.date) -> document.Judgement:
    """Apply a policy.

    Args:
        matched: the target and, if there is one, its base.
        loaded: the policy and the file it came from.
        today: decides which ignores have expired.
    """
    policy = loaded.policy
    without_base = [matched.target.measured[it.id] for it in matched.alone if it.id in matched.target.measured]
    chance = chance_of(matched.pairs, without_base, policy.gate.false_alarms)
    found: list[document.Finding] = []
    for rule in RULES.values():
        settings = policy.settings(rule.id)
        if settings.level != "off":
            found += [_finding(rule.id, settings.level, v) for v in rule.check(matched, settings, chance)]
    findings, notes = _apply_ignores(_worst_first(found), policy.ignore, today)
    outcome = _outcome(findings, matched)
    counts = _counts(matched)
    base = matched.base
    return document.Judgement(
        tool=TOOL,
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        headline=_headline(outcome, findings, counts, base is not None),
        target=matched.target.side,
        base=None if base is None else base.side,
        policy=document.PolicyUsed(path=None if loaded.path is None else str(loaded.path)),
        counts=counts,
        chance=chance,
        rules=tuple(_applied(matched, loaded)),
        findings=tuple(findings),
        updates=tuple(sorted(matched.updates.values(), key=lambda u: -(u.relative or u.spectral_norm))),
        notes=(*notes, *tensor_notes(matched)),
    )


def _finding(rule: str, level: document.Level, violation: Violation) -> document.Finding:
    identity = "\0".join((rule, violation.id or CHECKPOINT, violation.cause))
    return document.Finding(
        rule=rule,
        name=RULES[rule].name,
        level=level,
        id=violation.id,
        tensor=violation.tensor,
        kind=violation.kind,
        message=violation.message,
        now=violation.now,
        base=violation.base,
        severity=_finite(violation.severity),
        fingerprint=hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()[:32],
    )


def _worst_first(findings: Iterable[document.Finding]) -> list[document.Finding]:
    """Errors first, then the rules in the order of the table with broken and missing things ahead, then by severity."""
    urgency = {name: place for place, name in enumerate(("LT006", "LT005", "LT001", "LT002"))}
    return sorted(
        findings,
        key=lambda f: (
            f.level != "error",
            urgency.get(f.rule, len(urgency)),
            f.id is not None,
            -f.severity,
            f.id or "",
        ),
    )


def _apply_ignores(
    findings: list[document.Finding], ignores: Iterable[Ignore], today: datetime.date
) -> tuple[list[document.Finding], list[str]]:
    notes: list[str] = []
    for ignore in ignores:
        fits = [f for f in findings if f.rule == ignore.rule and fnmatchcase(f.id or CHECKPOINT, ignore.match)]
        what = f"ignore of {ignore.rule} for '{printable(ignore.match, 80)}'"
        if not fits:
            notes.append(f"{what} matches nothing: delete it")
        elif ignore.expires is not None and ignore.expires < today:
            notes.append(f"{what} expired on {ignore.expires.isoformat()}: it holds no more")
        else:
            covered = {id(finding) for finding in fits}
            findings = [
                f.model_copy(update={"ignored": f.ignored or ignore.reason}) if id(f) in covered else f
                for f in findings
            ]
    return findings, notes


def _outcome(findings: Iterable[document.Finding], matched: Matched) -> document.Outcome:
    """A violation found is a verdict, whatever else was not judged; but not against a base of another architecture."""
    errors = {f.rule for f in findings if f.level == "error" and f.ignored is None}
    if COVERAGE in errors and not matched.same_architecture:
        return "incomplete"
    if errors - {COVERAGE}:
        return "violated"
    return "incomplete" if errors else "passed"


def _counts(matched: Matched) -> document.Counts:
    pairs = matched.pairs
    states = [_state(pair) for pair in pairs]
    alone = [_state_alone(it, matched) for it in matched.alone]
    compared = [pair for pair in pairs if not pair.unchanged and pair.now is not None and pair.base is not None]
    traps = [pair.now.traps for pair in compared if pair.now is not None]
    return document.Counts(
        matrices=len(matched.target.described),
        unchanged=states.count("unchanged"),
        measured=states.count("measured") + alone.count("measured"),
        added=alone.count("added"),
        reshaped=states.count("reshaped"),
        not_compared=states.count("not_compared"),
        failed=states.count("failed") + alone.count("failed"),
        missing=len(matched.missing),
        too_small=sum(t is not None and not t.reliable for t in traps),
        without_alpha=sum(comparable_alpha(pair) is None for pair in compared),
    )


def _state(pair: Pair) -> str:
    if pair.unchanged:
        return "unchanged"
    if pair.now is None:
        return "failed"
    if pair.base is None:
        return "not_compared"
    return "measured" if sorted(pair.it.shape) == sorted(pair.was.shape) else "reshaped"


def _state_alone(it: Described, matched: Matched) -> str:
    if it.id in matched.target.failed or it.id not in matched.target.measured:
        return "failed"
    return "measured" if matched.base is None else "added"


def _applied(matched: Matched, loaded: LoadedPolicy) -> Iterator[document.RuleApplied]:
    kinds = sorted({it.kind for it in (*(pair.it for pair in matched.pairs), *matched.alone, *matched.missing)})
    for rule in RULES.values():
        yield document.RuleApplied(
            id=rule.id,
            name=rule.name,
            title=rule.title,
            level=loaded.policy.settings(rule.id).level,
            kinds=tuple(kinds) if rule.scope == "matrix" else (CHECKPOINT,),
            line=loaded.line(rule.id),
        )


def _headline(
    outcome: document.Outcome, findings: list[document.Finding], counts: document.Counts, has_base: bool
) -> str:
    if counts.matrices == 0:
        return "Not judged: nothing was audited."
    errors = [f for f in findings if f.level == "error" and f.ignored is None]
    looked = f"{plural(counts.matrices, 'matrix')}: {counts.measured:,} judged"
    if has_base:
        looked += f", {counts.unchanged:,} unchanged"
    if outcome == "passed":
        return f"Passed. Of {looked}; nothing {'new or worse' if has_base else 'that the policy forbids'}."
    if outcome == "incomplete":
        return f"Not judged: {errors[0].message}."
    rules = sorted({f"{f.rule} {f.name}" for f in errors})
    matrices = len({f.id for f in errors if f.id is not None})
    where = f" in {plural(matrices, 'matrix')}" if matrices else ""
    return f"Violated: {plural(len(errors), 'finding')}{where} ({', '.join(rules)}). Of {looked}."


def _finite(severity: float) -> float:
    """The same within what a document can hold: a quotient of numbers from a report may have no finite value."""
    return min(max(severity, -1e300), 1e300) if severity == severity else 1e300
