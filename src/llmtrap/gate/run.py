"""One gate: open both sides, leave aside what is unchanged, measure the rest in pairs, match, judge."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field, replace

from llmtrap.audit import AuditSettings
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.errors import UsageError
from llmtrap.gate.adapter_alone import audit_adapter
from llmtrap.gate.comparing import compare_checkpoints
from llmtrap.gate.document import Judgement
from llmtrap.gate.judge import judge, trap_tolerances
from llmtrap.gate.matching import CheckpointContents, Known, MatchedSides, match, match_named
from llmtrap.gate.measure_sides import GateOptions, measure, settings_like
from llmtrap.gate.new_baseline import why_no_baseline
from llmtrap.gate.other_tensors import compare_outside
from llmtrap.gate.policy_file import LoadedPolicy, load_policy
from llmtrap.gate.sides import adapted_sides
from llmtrap.gate.targets import OpenAdapter, Opened, Target, open_target
from llmtrap.gate.trust import distrusted, from_journal, sources_of
from llmtrap.gate.unchanged import unchanged_by_digest
from llmtrap.printable import printable
from llmtrap.report.against import Comparison, compare
from llmtrap.report.document import Report
from llmtrap.systems.process import peak_rss_bytes

__all__ = ["GateOptions", "GateResult", "gate"]


@dataclass(frozen=True)
class GateResult:
    """The judgement and the two reports it rests on; these hold the changed matrices alone where weights were given.

    `comparison` is of the two reports, decided as the judgement decides it. `matched` are the two sides, for
    `judge_again`. `whole` is the report of all matrices of the target, where the options ask for it and the target can
    be a baseline.
    """

    judgement: Judgement
    report: Report
    base: Report | None
    peak_rss_bytes: int
    comparison: Comparison | None = None
    matched: MatchedSides | None = field(default=None, repr=False)
    whole: Report | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"<GateResult {self.judgement.outcome}: {printable(self.judgement.headline, 500)}>"


def judge_again(gated: GateResult, loaded: LoadedPolicy) -> GateResult:
    """The same sides judged by a policy whose ignores are others; nothing is measured.

    Raises:
        ValueError: the sides are not at hand.
    """
    if gated.matched is None:
        raise ValueError("the sides of this judgement are not at hand")
    return replace(gated, judgement=judge(gated.matched, loaded, today()))


def today() -> datetime.date:
    """The day that decides which ignores have expired, in UTC."""
    return datetime.datetime.now(tz=datetime.UTC).date()


def gate(
    target: Target,
    base: Target | None = None,
    policy: LoadedPolicy | None = None,
    options: GateOptions | None = None,
) -> GateResult:
    """Judge a checkpoint, adapter or report against a base and a policy.

        gated = llmtrap.gate("out/checkpoint-500", "org/base-model")
        print(gated.judgement.headline, gated.judgement.exit_code)

    Args:
        target: a checkpoint, a LoRA adapter, a report (`.json`, or one at hand), or weights in memory: a torch module
            or a mapping of names to arrays.
        base: the checkpoint, report or weights it was tuned from; None takes the one that an adapter names, and judges
            anything else by the absolute rules alone.
        policy: the rules; None looks for `llmtrap.toml` or `pyproject.toml` in the current folder.
        options: how to run.

    Raises:
        LlmtrapError: something could not be opened, read or understood.
    """
    loaded = policy or load_policy(target=os.fspath(target) if isinstance(target, (str, os.PathLike)) else None)
    chosen = options or GateOptions()
    against = base if base is not None else _baseline(loaded)
    was = None if against is None else open_target(against, revision=chosen.base_revision)
    if isinstance(was, OpenAdapter):
        raise UsageError("the baseline is an adapter", file=str(against), remedy="Give the base model as the baseline")
    settings = settings_like(was.settings if isinstance(was, Report) else None, chosen)
    now = open_target(target, split_fused=settings.split_fused, revision=chosen.revision, subfolder=chosen.subfolder)
    if chosen.whole and isinstance(now, OpenAdapter):
        problem = "an adapter is no baseline: a baseline is the report of a whole model"
        raise UsageError(problem, file=str(target), remedy="Merge it into its base, and gate the result")
    if isinstance(now, Report):
        settings = settings_like(now.settings, chosen)
        if settings.split_fused and isinstance(was, Checkpoint) and against is not None:
            was = open_target(against, split_fused=True, revision=chosen.base_revision)
    why = None if chosen.journal is None else distrusted(chosen.journal, sources_of(now, was))
    if why is not None:
        chosen = replace(chosen, journal=None)
    try:
        matched, report, base_report = _match(now, was, settings, chosen, adapter_alone=_adapter_alone(loaded))
        if why is not None:
            note = f"the journal was not used, and everything measured anew: {why}"
            matched = replace(matched, notes=(*matched.notes, note))
        remembered = from_journal({"target": (now, report), "base": (was, base_report)}, chosen.journal)
        if remembered is not None:
            matched = replace(matched, notes=(*matched.notes, remembered))
        judgement = judge(matched, loaded, today())
        wanted = chosen.whole and why_no_baseline(judgement) is None
        whole = _whole(now, was, report, settings, chosen) if wanted else None
    finally:
        for side in (now, was):
            if not isinstance(side, Report) and side is not None:
                side.source.close()
    comparison = None
    if base_report is not None:
        tolerances = trap_tolerances(loaded.policy, judgement.chance)
        changes = {pair.it.id: pair.trap_changes(tolerances) for pair in matched.changed}
        comparison = compare(
            report,
            base_report,
            {name: it for name, it in changes.items() if it is not None},
            judgement.counts.unchanged,
        )
    return GateResult(judgement, report, base_report, peak_rss_bytes(), comparison, matched, whole)


def _whole(
    now: Opened, was: Opened | None, report: Report, settings: AuditSettings, options: GateOptions
) -> Report | None:
    """The report of everything in the target; without a base everything has been measured already."""
    if not isinstance(now, Checkpoint):
        return now if isinstance(now, Report) else None
    if was is None:
        return report
    settings = replace(settings, include=(), exclude=())
    return measure(now, {matrix.id for matrix in now.matrices}, settings, options, "measuring the new baseline")


def _adapter_alone(loaded: LoadedPolicy) -> bool:
    """Whether the policy accepts an adapter without its base."""
    return bool(getattr(loaded.policy.settings("LT006"), "adapter_alone", False))


def _baseline(loaded: LoadedPolicy) -> str | None:
    """The baseline that the policy names: a path from the policy's folder where there is one, else a hub name."""
    name = loaded.policy.gate.baseline
    if name is None or loaded.path is None:
        return name
    beside = loaded.path.parent / name
    return str(beside) if beside.exists() else name


def _match(
    now: Opened, was: Opened | None, settings: AuditSettings, options: GateOptions, *, adapter_alone: bool
) -> tuple[MatchedSides, Report, Report | None]:
    if isinstance(now, OpenAdapter):
        if isinstance(was, Report):
            raise UsageError(
                "an adapter is judged on its base model, and the baseline is a report",
                remedy="Give the base model itself with --baseline, or leave it out: the adapter names its base",
            )
        sides = adapted_sides(now, was if isinstance(was, Checkpoint) else None, alone=adapter_alone)
        if sides.target is None or sides.base is None:
            report, updates = audit_adapter(now)
            matched = match(CheckpointContents.of_report(report), None, Known(updates=updates))
            return replace(matched, adapter_alone=True, notes=sides.notes), report, None
        found, mine, theirs = compare_checkpoints(sides.target, sides.base, settings, options)
        notes = (*sides.notes, *found.notes)
        return replace(found, notes=notes, unknown_base=sides.unknown_base), mine, theirs
    if isinstance(now, Checkpoint) and isinstance(was, Checkpoint):
        return compare_checkpoints(now, was, settings, options)
    if isinstance(now, Checkpoint):
        return _with_report(now, was if isinstance(was, Report) else None, settings, options)
    assert isinstance(now, Report)  # noqa: S101 - the last kind there is
    if isinstance(was, Checkpoint):
        return _report_with_weights(now, was, settings, options)
    base = was if isinstance(was, Report) else None
    return (
        match(CheckpointContents.of_report(now), None if base is None else CheckpointContents.of_report(base)),
        now,
        base,
    )


def _with_report(
    now: Checkpoint, was: Report | None, settings: AuditSettings, options: GateOptions
) -> tuple[MatchedSides, Report, Report | None]:
    """Weights against a report, or against nothing. What a report of a part does not hold is not measured."""
    settings = replace(settings, include=(), exclude=())
    now = now.without_tables()
    mine = {matrix.id: matrix for matrix in now.matrices}
    unchanged: frozenset[str] = frozenset()
    wanted = set(mine)
    if was is not None:
        contents = CheckpointContents.of_report(was)
        unchanged = unchanged_by_digest(now.matrices, now.catalogue, now.source, was.target)
        unchanged = frozenset(name for name in unchanged if name in contents.measured)
        if contents.part is not None:
            wanted = {one.id for one, other in match_named(mine, contents.described) if other is not None}
    report = measure(now, wanted - unchanged, settings, options, "measuring the target")
    target = CheckpointContents.of_checkpoint(now, mine, report)
    base = None if was is None else CheckpointContents.of_report(was)
    outside = compare_outside(now, None)
    return replace(match(target, base, Known(unchanged=unchanged)), outside=outside), report, was


def _report_with_weights(
    now: Report, was: Checkpoint, settings: AuditSettings, options: GateOptions
) -> tuple[MatchedSides, Report, Report]:
    """A report against weights: of these only what the report holds is measured."""
    settings = replace(settings, include=(), exclude=())
    target = CheckpointContents.of_report(now)
    was = was.without_tables()
    theirs: dict[str, WeightMatrix] = {matrix.id: matrix for matrix in was.matrices}
    wanted = {other.id for _, other in match_named(target.described, theirs) if other is not None}
    wanted |= {alias for it in target.described.values() for alias in it.aliases if alias in theirs}
    base = measure(was, wanted, settings, options, "measuring the base")
    return match(target, CheckpointContents.of_checkpoint(was, theirs, base)), now, base
