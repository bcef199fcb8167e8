"""Measure what the judgement needs, and no more: changed matrices of both sides, and the updates between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmtrap.audit import (
    AuditRun,
    AuditSettings,
    Failed,
    Finished,
    Journal,
    Measured,
    Plan,
    RunOptions,
    journal_for,
    make_plan,
)
from llmtrap.audit.executors.base import WorkerStalled
from llmtrap.audit.executors.choose import choose_executor
from llmtrap.audit.executors.worker import WorkerSpec
from llmtrap.audit.journal import BesideRecord, Recorded, remembered
from llmtrap.audit.other_tensors import look_beside
from llmtrap.audit.report import assemble, record_of, settings_of
from llmtrap.audit.settings import ALONE_SECONDS
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.gate.pair_task import Compared, PairSource, PairTask, measure_pair
from llmtrap.gate.pairing import MatrixPair
from llmtrap.report.document import Matrix, Report, Settings
from llmtrap.spectra.backends import select_backend
from llmtrap.systems.process import peak_rss_bytes

Observer = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much: `measuring the target`, 3, 12."""


@dataclass(frozen=True)
class GateOptions:
    """How a gate runs; nothing here changes the judgement.

    `journal` is the folder where measurements are kept, so that the base is measured once; None keeps none. `whole`
    also measures what equals the base, for a report of the whole target.
    """

    workers: int = field(default_factory=lambda: RunOptions().workers)
    device: str = "auto"
    backend: str = "auto"
    journal: Path | None = None
    fresh: bool = False
    revision: str | None = None
    base_revision: str | None = None
    subfolder: str | None = None
    whole: bool = False
    observe: Observer | None = None

    def tell(self, what: str, done: int, of: int) -> None:
        """Tell the observer, if there is one."""
        if self.observe is not None:
            self.observe(what, done, of)


def settings_like(report: Settings | None, options: GateOptions) -> AuditSettings:
    """The settings of a report on the other side, so that the two can be compared; else the audit's defaults."""
    if report is None:
        return AuditSettings(device=options.device, backend=options.backend)
    return AuditSettings(
        traps=report.traps, trap_rule=report.trap_rule, alpha=report.alpha, include=report.include,
        exclude=report.exclude, split_fused=report.split_fused, shuffles=report.shuffles, seed=report.seed,
        device=options.device, backend=options.backend,
    )  # fmt: skip


def measure(
    checkpoint: Checkpoint, ids: Iterable[str], settings: AuditSettings, options: GateOptions, what: str
) -> Report:
    """Audit some matrices of a checkpoint.

    Args:
        checkpoint: the whole.
        ids: the matrices to measure.
        settings: what to measure of them.
        options: how to run.
        what: words for the observer.
    """
    wanted = set(ids)
    part = replace(checkpoint, matrices=tuple(m for m in checkpoint.matrices if m.id in wanted))
    kept = _journal(checkpoint, options)
    cost = AuditRun(part, settings, RunOptions(workers=1)).plan.core_seconds
    events = AuditRun(part, settings, RunOptions(workers=_workers(cost, len(part.matrices), options)), kept).events()
    done = 0
    try:
        for event in events:
            if isinstance(event, (Measured, Failed)):
                done += 1
                options.tell(what, done, len(part.matrices))
            elif isinstance(event, Finished) and event.report is not None:
                return event.report
    finally:
        events.close()
    raise RuntimeError("the audit ended without a report")


@dataclass(frozen=True)
class MeasuredPairs:
    """The reports of both sides, which hold the measured matrices alone, and what was compared, by the target's id."""

    report: Report
    base: Report
    compared: Mapping[str, Compared]


def measure_pairs(
    now: Checkpoint,
    was: Checkpoint,
    pairs: Sequence[MatrixPair],
    alone: Sequence[WeightMatrix],
    own_base: frozenset[str],
    settings: AuditSettings,
    options: GateOptions,
) -> MeasuredPairs:
    """Measure pairs of matrices, each in one worker that reads both sides once.

    Args:
        now: the target.
        was: the base.
        pairs: what to measure on both sides.
        alone: matrices that only the target has.
        own_base: ids of the target's matrices that are an adapter's update on the very matrix of their pair.
        settings: what to measure.
        options: how to run.
    """
    start = time.perf_counter()
    partner = {pair.now.id: pair.base for pair in pairs}
    mine = make_plan(replace(now, matrices=(*(pair.now for pair in pairs), *alone)), settings)
    theirs = make_plan(replace(was, matrices=tuple({p.base.id: p.base for p in pairs}.values())), settings)
    base_tasks = {task.matrix.id: task for task in theirs.tasks}
    journals = _journal(now, options), _journal(was, options)
    known, base_known = (_remembered(*side) for side in zip(journals, (mine, theirs), strict=True))
    results, base_results = ({key: it.matrix for key, it in side.items()} for side in (known, base_known))
    tasks = []
    for position in mine.order:
        task = mine.tasks[position]
        base = partner.get(task.matrix.id)
        was_known = None if base is None else base_results.get(base_tasks[base.id].key)
        cost = task.cost if base is None else 2 * task.cost
        tasks.append(
            PairTask(
                task.matrix, task.key, cost, task.bytes, base, results.get(task.key), was_known,
                on_own_base=task.matrix.id in own_base,
            )
        )  # fmt: skip
    by_key = {task.key: task for task in tasks}
    spec = WorkerSpec(
        PairSource(now.source, was.source), settings.analysis(), settings.backend, settings.device, measure_pair
    )
    workers = _workers(sum(task.cost for task in tasks), len(tasks), options)
    outcomes = choose_executor(spec, RunOptions(workers=workers)).run(tasks) if tasks else iter(())
    errors: dict[str, str] = {}
    base_errors: dict[str, str] = {}
    compared: dict[str, Compared] = {}
    done = 0
    for outcome in outcomes:
        if isinstance(outcome, WorkerStalled):
            continue
        done += 1
        task = by_key[outcome.key]
        options.tell("measuring", done, len(tasks))
        if outcome.matrix is None:
            errors[outcome.key] = outcome.error or "unknown"
            continue
        assert isinstance(outcome.more, Compared)  # noqa: S101 - what `measure_pair` gives
        results[task.key] = outcome.matrix
        compared[task.matrix.id] = outcome.more
        _record(journals[0], task.key, outcome.matrix, task.now_known)
        if task.base is not None:
            key = base_tasks[task.base.id].key
            if outcome.more.base is not None:
                base_results[key] = outcome.more.base
                _record(journals[1], key, outcome.more.base, task.base_known)
            elif outcome.more.base_error is not None:
                base_errors[key] = outcome.more.base_error
    seconds = time.perf_counter() - start
    document = settings_of(settings, select_backend(settings.backend, settings.device).name)
    record, base_record = record_of(now, document, mine), record_of(was, document, theirs)
    report = assemble(
        record, results, look_beside(now, now.source, mine.skipped), errors=errors, seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(), remembered=remembered(known.values()),
    )  # fmt: skip
    base_report = assemble(
        base_record, base_results, BesideRecord(base_record.skipped), errors=base_errors, seconds=seconds,
        remembered=remembered(base_known.values()),
    )  # fmt: skip
    return MeasuredPairs(report, base_report, compared)


def _workers(cost: float, matrices: int, options: GateOptions) -> int:
    return 1 if cost < ALONE_SECONDS else max(1, min(options.workers, matrices))


def _journal(checkpoint: Checkpoint, options: GateOptions) -> Journal | None:
    # Nothing would tell weights in memory from those that they are after the next step.
    if options.journal is None or checkpoint.catalogue.identity.kind == "memory":
        return None
    kept = journal_for(checkpoint, options.journal)
    if options.fresh:
        kept.forget()
    return kept


def _remembered(journal: Journal | None, plan: Plan) -> dict[str, Recorded]:
    return {} if journal is None or not plan.tasks else journal.results({task.key for task in plan.tasks})


def _record(journal: Journal | None, key: str, matrix: Matrix, known: Matrix | None) -> None:
    if journal is not None and known is None:
        journal.add(key, matrix)
