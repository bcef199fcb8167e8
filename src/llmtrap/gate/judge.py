"""The judgement: rules over matched sides, ignores, and the outcome. Pure: documents in, a document out."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from llmtrap.audit.report import TOOL
from llmtrap.gate import document
from llmtrap.gate.chance import chance_of, comparable_alpha
from llmtrap.gate.matching import MatchedSides, MatrixRef, Pair
from llmtrap.gate.policy import Ignore, Policy
from llmtrap.gate.policy_file import LoadedPolicy
from llmtrap.gate.rules import CHECKPOINT, COVERAGE, RULES, NotJudged, Rule, Violation
from llmtrap.gate.rules.new_trap import NewTrap
from llmtrap.gate.rules.worse_trap import WorseTrap
from llmtrap.gate.unjudged import Gap, grouped, unmeasured
from llmtrap.report.formatting import plural, printable
from llmtrap.report.trap_changes import Tolerances

EXIT_CODES: dict[document.Outcome, int] = {"passed": 0, "violated": 1, "incomplete": 3}


def judge(matched: MatchedSides, loaded: LoadedPolicy, today: datetime.date) -> document.Judgement:
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
    gaps = unmeasured(matched, policy) if matched.same_architecture else []
    for rule in RULES.values():
        settings = policy.settings(rule.id)
        if settings.level == "off":
            continue
        for item in rule.check(matched, settings, chance):
            if isinstance(item, NotJudged):
                gaps.append(Gap(rule.id, settings.level, item, matched.same_architecture))
            else:
                found.append(_finding(rule.id, "warn" if item.only_warn else settings.level, item))
    findings, notes = _apply_ignores(_worst_first(found), policy.ignore, today, gaps)
    notes = [*loaded.notes, *notes]
    if off := [rule for rule in RULES.values() if policy.settings(rule.id).level == "off"]:
        notes.append(f"off in the policy: {', '.join(f'{rule.id} {rule.name}' for rule in off)}")
    not_judged = grouped(gaps, policy.ignore, today)
    outcome = "incomplete" if len(off) == len(RULES) else _outcome(findings, not_judged, matched)
    counts = _counts(matched)
    base = matched.base
    return document.Judgement(
        tool=TOOL,
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        headline=_headline(outcome, findings, not_judged, counts, base is not None, off),
        target=matched.target.side,
        base=None if base is None else base.side,
        policy=document.PolicyUsed(path=None if loaded.path is None else str(loaded.path)),
        counts=counts,
        chance=chance,
        rules=tuple(_applied(matched, loaded)),
        findings=tuple(findings),
        not_judged=tuple(not_judged),
        updates=tuple(sorted(matched.updates.values(), key=lambda u: -(u.relative or u.spectral_norm))),
        outside=matched.outside or (),
        notes=(*notes, *matched.notes, *_outside_notes(matched)),
    )


def trap_tolerances(policy: Policy, chance: document.Chance) -> Tolerances:
    """What counts as a change of traps under a policy, for outputs that show the change beside the judgement."""
    new, worse = policy.settings("LT001"), policy.settings("LT002")
    assert isinstance(new, NewTrap)  # noqa: S101 - the table's own types
    assert isinstance(worse, WorseTrap)  # noqa: S101
    return Tolerances(new.margin, chance.trap_z, worse.tolerance, worse.least_rise)


def _outside_notes(matched: MatchedSides) -> Iterator[str]:
    """Tensors outside the matrices that changed, or that one side lacks."""
    if matched.base is None or not matched.same_architecture:
        return
    for change, words in (
        ("changed", "changed"), ("added", "only in the target"), ("missing", "only in the base"),
        ("reshaped", "of another shape than in the base"), ("unreadable", "could not be read"),
    ):  # fmt: skip
        names = [tensor.tensor for tensor in matched.outside or () if tensor.change == change]
        if names:
            named = ", ".join(printable(name, 80) for name in names[:3]) + (", …" if len(names) > 3 else "")
            kind = "no weight matrix" if len(names) == 1 else "no weight matrices"
            yield f"{plural(len(names), 'tensor')} {words}, {kind}: {named}"


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
    findings: list[document.Finding], ignores: Iterable[Ignore], today: datetime.date, gaps: Sequence[Gap]
) -> tuple[list[document.Finding], list[str]]:
    notes: list[str] = []
    for ignore in ignores:
        fits = [f for f in findings if ignore.means(f.rule, f.id)]
        what = f"ignore of {ignore.rule} for '{printable(ignore.match, 80)}'"
        if not fits and not any(ignore.means(gap.rule, gap.item.id) for gap in gaps):
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


def _outcome(
    findings: Iterable[document.Finding], not_judged: Iterable[document.NotJudged], matched: MatchedSides
) -> document.Outcome:
    """A violation found is a verdict, whatever else was not judged; but not against a base of another architecture."""
    errors = {f.rule for f in findings if f.level == "error" and f.ignored is None}
    if COVERAGE in errors and not matched.same_architecture:
        return "incomplete"
    if errors - {COVERAGE}:
        return "violated"
    return "incomplete" if errors or any(it.blocks for it in not_judged) else "passed"


def _counts(matched: MatchedSides) -> document.Counts:
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
    return "reshaped" if pair.reshaped else "measured"


def _state_alone(it: MatrixRef, matched: MatchedSides) -> str:
    if matched.base is not None and matched.base.part is not None:
        return "not_compared"
    if it.id in matched.target.failed or it.id not in matched.target.measured:
        return "failed"
    return "measured" if matched.base is None else "added"


def _applied(matched: MatchedSides, loaded: LoadedPolicy) -> Iterator[document.RuleApplied]:
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
    outcome: document.Outcome,
    findings: list[document.Finding],
    not_judged: list[document.NotJudged],
    counts: document.Counts,
    has_base: bool,
    off: Sequence[Rule],
) -> str:
    if counts.matrices == 0:
        return "Not judged: nothing was audited."
    if len(off) == len(RULES):
        return "Not judged: the policy has every rule at level off."
    errors = [f for f in findings if f.level == "error" and f.ignored is None]
    looked = f"{plural(counts.matrices, 'matrix')}: {counts.measured:,} judged"
    if has_base:
        looked += f", {counts.unchanged:,} unchanged"
    if outcome == "passed":
        return f"Passed. Of {looked}; nothing {'new or worse' if has_base and not off else 'that the policy forbids'}."
    if outcome == "incomplete" and errors:
        return f"Not judged: {errors[0].message}."
    if outcome == "incomplete":
        blocking = [it for it in not_judged if it.blocks]
        names = ", ".join(dict.fromkeys(f"{it.rule} {it.name}" for it in blocking))
        return f"Not judged: nothing was found, and {names} could not be evaluated: {blocking[0].reason}."
    rules = sorted({f"{f.rule} {f.name}" for f in errors})
    matrices = len({f.id for f in errors if f.id is not None})
    where = f" in {plural(matrices, 'matrix')}" if matrices else ""
    return f"Violated: {plural(len(errors), 'finding')}{where} ({', '.join(rules)}). Of {looked}."


def _finite(severity: float) -> float:
    """The same within what a document can hold: a quotient of numbers from a report may have no finite value."""
    return min(max(severity, -1e300), 1e300) if severity == severity else 1e300
