"""LT006: not enough could be judged. The one rule whose error is exit code 3: no verdict, rather than a bad one."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import Matched, Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation
from llmtrap.report.document import Matrix
from llmtrap.report.wording import plural, printable


class Coverage(RuleSettings):
    """How much must be judged."""

    min_coverage: float = Field(
        default=1.0, ge=0, le=1, description="share of the target's matrices that must be judged, or be unchanged"
    )
    adapter_alone: bool = Field(
        default=False, description="accept a LoRA adapter without its base model, judged by its update alone"
    )


def check(matched: Matched, settings: Coverage, chance: Chance) -> Iterator[Violation]:
    """One objection for the checkpoint, and one for each matrix that was not judged, if too many were not."""
    del chance
    if matched.adapter_alone and not settings.adapter_alone:
        yield Violation(
            None, None,
            "an adapter alone: traps of base + ΔW cannot be seen. Give its base model with --baseline, or accept that "
            "with adapter_alone = true",
            cause="adapter",
        )  # fmt: skip
        return
    planned = len(matched.target.described)
    if planned == 0:
        yield Violation(None, None, "nothing was audited: the target has no weight matrix", cause="nothing")
        return
    if not matched.same_architecture:
        yield Violation(None, None, _another_architecture(matched), cause="architecture", severity=1e9)
        return
    gaps = list(_gaps(matched))
    if planned - len(gaps) >= settings.min_coverage * planned:
        return
    yield Violation(
        None, None,
        f"{planned - len(gaps):,} of {plural(planned, 'matrix')} judged, under min_coverage = {settings.min_coverage}",
        cause="coverage",
        now=(planned - len(gaps)) / planned,
        severity=1e6,
    )  # fmt: skip
    yield from gaps


def _gaps(matched: Matched) -> Iterator[Violation]:
    for pair in matched.pairs:
        why = None if pair.unchanged else _why_not(pair)
        if why:
            yield Violation(pair.it.id, pair.it.tensor, f"not judged: {why}", cause="gap")
    for it in matched.alone:
        why = _why_unmeasured(
            matched.target.measured.get(it.id), matched.target.failed.get(it.id), matched.adapter_alone
        )
        if why:
            yield Violation(it.id, it.tensor, f"not judged: {why}", cause="gap")


def _why_not(pair: Pair) -> str | None:
    """Why a changed matrix could not be judged for traps. Broken entries are judged: by LT005."""
    here = _why_unmeasured(pair.now, pair.error)
    if here:
        return here
    if pair.now is None or pair.now.non_finite is not None:
        return None
    if pair.base is None:
        return "the base has no measurement of it"
    if pair.base.non_finite is not None:
        return "the base has NaN or infinite entries there, so it says nothing of traps"
    was, now = pair.base.traps, pair.now.traps
    if was is None or was.method == "undecided":
        return "the base was not decided there: audit it with --traps auto"
    if now is not None and now.rule != was.rule:
        return f"the trap rules differ: {printable(now.rule, 40)} here, {printable(was.rule, 40)} in the base"
    return None


def _why_unmeasured(now: Matrix | None, error: str | None, adapter: bool = False) -> str | None:
    if now is None:
        return printable(error or "not measured", 300)
    if now.non_finite is not None or adapter:
        return None
    if now.traps is None:
        return "traps were not looked for"
    return "traps undecided: audit it with --traps auto" if now.traps.method == "undecided" else None


def _another_architecture(matched: Matched) -> str:
    base = matched.base
    assert base is not None  # noqa: S101 - without a base every architecture is the same
    return (
        f"the baseline is of another architecture: {len(matched.pairs):,} of "
        f"{plural(len(matched.target.described), 'matrix')} are in it by name, and too few in the same shape "
        f"(family {printable(matched.target.side.family, 40)} here, {printable(base.side.family, 40)} there)"
    )


RULE = Rule(
    id="LT006",
    name="coverage",
    title="Too little could be judged for a verdict",
    settings=Coverage,
    check=check,
    scope="checkpoint",
)
