"""LT006: not enough could be judged. The one rule whose error is exit code 3: no verdict, rather than a bad one."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.files_beside import is_file
from llmtrap.gate.matching import MatchedSides, Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation
from llmtrap.report.coverage import PARTLY_ABOVE, percent
from llmtrap.report.document import Matrix
from llmtrap.report.formatting import plural, printable


class Coverage(RuleSettings):
    """How much must be judged."""

    min_coverage: float = Field(
        default=1.0, ge=0, le=1, description="share of the target's matrices that must be judged, or be unchanged"
    )
    adapter_alone: bool = Field(
        default=False, description="accept a LoRA adapter without its base model, judged by its update alone"
    )
    trust_baseline: bool = Field(
        default=False, description="take the baseline for the base of an adapter whose own base cannot be opened"
    )


def check(matched: MatchedSides, settings: Coverage, chance: Chance) -> Iterator[Violation]:
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
    planned = len(matched.target.described) + _beyond_the_part(matched)
    if planned == 0:
        yield Violation(None, None, "nothing was audited: the target has no weight matrix", cause="nothing")
        return
    if not matched.same_architecture:
        yield Violation(None, None, _another_architecture(matched), cause="architecture", severity=1e9)
        return
    if matched.unknown_base is not None and not settings.trust_baseline:
        message = f"{matched.unknown_base}. Correct base_model_name_or_path, or accept it with trust_baseline = true"
        yield Violation(None, None, message, cause="base", severity=1e8)
    if (unmeasured := _unmeasured(matched)) is not None:
        yield unmeasured
    gaps = list(gaps_of(matched))
    named = len(matched.missing) if matched.target.part is not None else 0
    judged = planned - len(gaps) - (_beyond_the_part(matched) - named)
    if judged >= settings.min_coverage * planned:
        return
    part = matched.target.part
    of_part = f": the target's report is of a part ({printable(part, 200)})" if part is not None else ""
    yield Violation(
        None, None,
        f"{judged:,} of {plural(planned, 'matrix')} judged, under min_coverage = {settings.min_coverage}{of_part}",
        cause="coverage",
        now=judged / planned,
        severity=1e6,
    )  # fmt: skip
    yield from gaps


def _unmeasured(matched: MatchedSides) -> Violation | None:
    """Weights that could not be measured, and are not the base's byte for byte, where they are more than a trifle."""
    found = [item for item in matched.target.skipped.values() if item.kind in ("unmeasured", "unreadable")]
    if matched.base is not None and not matched.base.is_report and matched.outside is not None:
        changed = {tensor.tensor for tensor in matched.outside if tensor.change != "same"}
        found = [
            item
            for item in found
            if (item.tensor not in matched.own_files if is_file(item) else item.tensor in changed)
        ]
    held = sum(item.parameters for item in found)
    whole = matched.target.parameters + sum(
        item.parameters for item in matched.target.skipped.values() if item.kind != "buffer"
    )
    empty = any(item.kind == "unmeasured" and item.parameters == 0 for item in found)
    if not empty and held <= PARTLY_ABOVE * whole:
        return None
    names = ", ".join(printable(item.tensor, 80) for item in sorted(found, key=lambda item: -item.parameters)[:3])
    names = f"{names}{', …' if len(found) > 3 else ''}"
    if all(map(is_file, found)):
        whose = "" if matched.base is None else ", not the base's own"
        message = f"partly measured: {plural(len(found), 'weight file')}{whose}, not looked at: {names}"
    else:
        message = (
            f"partly measured: {plural(len(found), 'tensor')} with {percent(held, max(whole, 1))} of the parameters "
            f"are weights that could not be measured: {names}"
        )
    return Violation(None, None, message, cause="unmeasured", severity=1e7)


def _beyond_the_part(matched: MatchedSides) -> int:
    """Matrices that a report of a part left out: those of a whole base, else what the report names."""
    if matched.target.part is None:
        return 0
    if matched.base is not None and matched.base.part is None:
        return len(matched.missing)
    return len(matched.missing) + sum(item.kind == "on_request" for item in matched.target.skipped.values())


def gaps_of(matched: MatchedSides) -> Iterator[Violation]:
    """The matrices of which too little is known to judge them."""
    for pair in matched.changed:
        why = _why_not(pair)
        if why:
            yield Violation(pair.it.id, pair.it.tensor, f"not judged: {why}", cause="gap")
    for it in matched.alone:
        why = _why_unmeasured(
            matched.target.measured.get(it.id), matched.target.failed.get(it.id), matched.adapter_alone
        )
        if matched.base is not None and matched.base.part is not None:
            why = f"the base's report is of a part ({printable(matched.base.part, 200)})"
        if why:
            yield Violation(it.id, it.tensor, f"not judged: {why}", cause="gap")
    if matched.target.part is not None:
        why = f"the target's report is of a part ({printable(matched.target.part, 200)})"
        for was in matched.missing:
            yield Violation(was.id, was.tensor, f"not judged: {why}", cause="gap")


def _why_not(pair: Pair) -> str | None:
    """Why a changed matrix could not be judged for traps. Broken entries are judged: by LT005."""
    here = _why_unmeasured(pair.now, pair.error)
    if here:
        return here
    if pair.now is None or pair.now.non_finite is not None:
        return None
    if pair.base is None:
        why = f": {printable(pair.base_error, 300)}" if pair.base_error else ""
        return f"the base has no measurement of it{why}"
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


def _another_architecture(matched: MatchedSides) -> str:
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
