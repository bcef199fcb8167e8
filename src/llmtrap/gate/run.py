"""One gate: open both sides, skip what is unchanged, measure the rest, match, judge."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmtrap.audit import AuditSettings, make_plan
from llmtrap.audit.executors.worker import peak_rss_bytes
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.checkpoint.adapted import AdaptedTensor, adapt, changed_matrices
from llmtrap.checkpoint.adapters import singular_values
from llmtrap.errors import UsageError
from llmtrap.gate.adapter_alone import audit_adapter, update_of
from llmtrap.gate.document import Judgement, Update
from llmtrap.gate.judge import judge
from llmtrap.gate.matching import Contents, Described, Matched, match, match_described
from llmtrap.gate.measuring import GateOptions, measure, settings_like
from llmtrap.gate.policy_file import LoadedPolicy, load_policy
from llmtrap.gate.targets import OpenAdapter, Opened, open_target
from llmtrap.gate.unchanged import unchanged_by_digest, unchanged_matrices
from llmtrap.gate.update import measure_updates
from llmtrap.report.document import Report
from llmtrap.spectra.backends import select_backend

__all__ = ["GateOptions", "Gated", "gate"]

WeightPair = tuple[WeightMatrix, WeightMatrix]


@dataclass(frozen=True)
class Gated:
    """The judgement and the two reports it rests on; these hold the changed matrices alone where weights were given."""

    judgement: Judgement
    report: Report
    base: Report | None
    peak_rss_bytes: int


def gate(
    target: str,
    base: str | None = None,
    policy: LoadedPolicy | None = None,
    options: GateOptions | None = None,
) -> Gated:
    """Judge a checkpoint, adapter or report against a base and a policy.

        gated = llmtrap.gate("out/checkpoint-500", "org/base-model")
        print(gated.judgement.headline, gated.judgement.exit_code)

    Args:
        target: a checkpoint, a LoRA adapter, or a report (`.json`).
        base: the checkpoint or report it was tuned from; None judges by the absolute rules alone.
        policy: the rules; None looks for `llmtrap.toml` or `pyproject.toml` in the current folder.
        options: how to run.

    Raises:
        LlmtrapError: something could not be opened, read or understood.
    """
    loaded = policy or load_policy()
    chosen = options or GateOptions()
    against = base if base is not None else _baseline(loaded)
    was = None if against is None else open_target(against, revision=chosen.base_revision)
    if isinstance(was, OpenAdapter):
        raise UsageError("the baseline is an adapter", file=against, remedy="Give the base model as the baseline")
    settings = settings_like(was.settings if isinstance(was, Report) else None, chosen)
    now = open_target(target, split_fused=settings.split_fused, revision=chosen.revision)
    if isinstance(now, Report):
        settings = settings_like(now.settings, chosen)
        if settings.split_fused and isinstance(was, Checkpoint) and against is not None:
            was = open_target(against, split_fused=True, revision=chosen.base_revision)
    try:
        matched, report, base_report = _match(now, was, settings, chosen)
    finally:
        for side in (now, was):
            if not isinstance(side, Report) and side is not None:
                side.source.close()
    judgement = judge(matched, loaded, datetime.datetime.now(tz=datetime.UTC).date())
    return Gated(judgement, report, base_report, peak_rss_bytes())


def _baseline(loaded: LoadedPolicy) -> str | None:
    """The baseline that the policy names: a path from the policy's folder where there is one, else a hub name."""
    name = loaded.policy.gate.baseline
    if name is None or loaded.path is None:
        return name
    beside = loaded.path.parent / name
    return str(beside) if beside.exists() else name


def _match(
    now: Opened, was: Opened | None, settings: AuditSettings, options: GateOptions
) -> tuple[Matched, Report, Report | None]:
    if isinstance(now, OpenAdapter):
        if isinstance(was, Checkpoint):
            return _match_adapter(now, was, settings, options)
        if was is not None:
            raise UsageError(
                "an adapter is judged on its base model, and the baseline is a report",
                remedy="Give the base model itself with --baseline, or leave it out to judge the update alone",
            )
        report, updates = audit_adapter(now)
        return match(Contents.of_report(report), None, updates=updates, adapter_alone=True), report, None
    if isinstance(now, Checkpoint) and isinstance(was, Checkpoint):
        return _match_checkpoints(now, was, settings, options)
    if isinstance(now, Checkpoint):
        return _match_with_report(now, was if isinstance(was, Report) else None, settings, options)
    assert isinstance(now, Report)  # noqa: S101 - the last kind there is
    if isinstance(was, Checkpoint):
        was = measure(was, [m.id for m in was.matrices], settings, options, "measuring the base")
    base = was if isinstance(was, Report) else None
    return match(Contents.of_report(now), None if base is None else Contents.of_report(base)), now, base


def _match_with_report(
    now: Checkpoint, was: Report | None, settings: AuditSettings, options: GateOptions
) -> tuple[Matched, Report, Report | None]:
    """Weights against a report, or against nothing."""
    plan = make_plan(now, settings)
    chosen = [task.matrix for task in plan.tasks]
    unchanged: frozenset[str] = frozenset()
    if was is not None:
        unchanged = unchanged_by_digest(chosen, now.catalogue, now.source, was.target)
        known = {matrix.id for matrix in was.matrices}
        unchanged = frozenset(name for name in unchanged if name in known)
    report = measure(now, [m.id for m in chosen if m.id not in unchanged], settings, options, "measuring the target")
    contents = Contents.of_checkpoint(now, plan, report)
    return match(contents, None if was is None else Contents.of_report(was), unchanged), report, was


def _match_checkpoints(
    now: Checkpoint, was: Checkpoint, settings: AuditSettings, options: GateOptions
) -> tuple[Matched, Report, Report]:
    """Weights against weights: compare bytes, then measure what differs, on both sides."""
    pairs = _pairs(now, was, settings)
    count = 0

    def compared(_: WeightMatrix) -> None:
        nonlocal count
        count += 1
        options.tell("comparing bytes", count, len(pairs))

    # Reading is what this waits for: two threads keep one disk or one core's memory busy.
    unchanged = unchanged_matrices(pairs, now.source, was.source, min(2, options.workers), compared)
    changed = [pair for pair in pairs if pair[0].id not in unchanged]
    if _is_other_architecture(now, was, settings):
        changed = []
    return _measure_changed(now, was, changed, unchanged, settings, options)


def _match_adapter(
    opened: OpenAdapter, was: Checkpoint, settings: AuditSettings, options: GateOptions
) -> tuple[Matched, Report, Report]:
    """An adapter on its base: the matrices it does not touch are unchanged without a look."""
    now = adapt(was, opened.adapter, opened.source)
    touched = {matrix.id for matrix in changed_matrices(now, was)}
    pairs = _pairs(now, was, settings)
    unchanged = frozenset(one.id for one, _ in pairs if one.id not in touched)
    # What the adapter saves whole may be the base's own.
    unchanged |= unchanged_matrices([pair for pair in pairs if pair[0].id in touched], now.source, was.source)
    return _measure_changed(now, was, [p for p in pairs if p[0].id not in unchanged], unchanged, settings, options)


def _measure_changed(
    now: Checkpoint,
    was: Checkpoint,
    changed: Sequence[WeightPair],
    unchanged: frozenset[str],
    settings: AuditSettings,
    options: GateOptions,
) -> tuple[Matched, Report, Report]:
    plan, base_plan = make_plan(now, settings), make_plan(was, settings)
    matched_here = {one.id for one, _ in changed} | unchanged
    added = [] if not matched_here else [t.matrix.id for t in plan.tasks if t.matrix.id not in matched_here]
    report = measure(now, [*(one.id for one, _ in changed), *added], settings, options, "measuring the target")
    base = measure(was, [other.id for _, other in changed], settings, options, "measuring the base")
    updates = _updates(now, was, changed, base, options)
    contents = Contents.of_checkpoint(now, plan, report)
    return match(contents, Contents.of_checkpoint(was, base_plan, base), unchanged, updates), report, base


def _updates(
    now: Checkpoint, was: Checkpoint, changed: Sequence[WeightPair], base: Report, options: GateOptions
) -> dict[str, Update]:
    """ΔW of each changed pair: of a LoRA update exactly, from its factors; else from both sides' weights."""
    backend = select_backend(options.backend, options.device)
    norms = {m.id: m.spectrum.frobenius_norm for m in base.matrices if m.spectrum is not None}
    found, dense, done = {}, [], 0
    for one, other in changed:
        if isinstance(one.stored, AdaptedTensor):
            left, right = one.stored.factors(now.source)
            if np.isfinite(left).all() and np.isfinite(right).all():
                found[one.id] = update_of(singular_values(left, right), one.id, norms.get(other.id))
        elif _comparable(one, other):
            dense.append((one, other))

    def advance(_: WeightMatrix) -> None:
        nonlocal done
        done += 1
        options.tell("measuring ΔW", done, len(dense))

    return found | measure_updates(dense, now.source, was.source, backend, options.workers, advance)


def _comparable(one: WeightMatrix, other: WeightMatrix) -> bool:
    """Whether entry (i, j) is the same weight on both sides: stacks of experts are transposed between formats."""
    return one.shape == other.shape and (one.encoding == other.encoding or one.index is other.index is None)


def _pairs(now: Checkpoint, was: Checkpoint, settings: AuditSettings) -> list[WeightPair]:
    mine = {task.matrix.id: task.matrix for task in make_plan(now, settings).tasks}
    theirs = {task.matrix.id: task.matrix for task in make_plan(was, settings).tasks}
    return [
        (mine[it.id], theirs[other.id])
        for it, other in match_described(_described(mine), _described(theirs))
        if other is not None
    ]


def _described(matrices: dict[str, WeightMatrix]) -> dict[str, Described]:
    return {name: Described(name, m.tensor, m.shape, m.encoding, m.aliases) for name, m in matrices.items()}


def _is_other_architecture(now: Checkpoint, was: Checkpoint, settings: AuditSettings) -> bool:
    here = Contents.of_checkpoint(now, make_plan(now, settings), None)
    there = Contents.of_checkpoint(was, make_plan(was, settings), None)
    return not match(here, there).same_architecture
