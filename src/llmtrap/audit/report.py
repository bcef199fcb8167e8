"""The document of a run, from its plan and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from llmtrap.audit.journal import PlanRecord, TaskRecord
from llmtrap.audit.plan import Plan
from llmtrap.checkpoint import Checkpoint
from llmtrap.report import document
from llmtrap.report.coverage import count_coverage
from llmtrap.report.summary import summarise
from llmtrap.version import __version__

TOOL = document.Tool(name="llmtrap", version=__version__)


def target_of(checkpoint: Checkpoint) -> document.Target:
    """What was audited, with its files."""
    catalogue = checkpoint.catalogue
    return document.Target(
        name=catalogue.identity.name,
        kind=catalogue.identity.kind,
        revision=catalogue.identity.revision,
        family=checkpoint.family,
        files=tuple(document.File(path=f.name, bytes=f.size, digest=f.digest) for f in catalogue.files),
        encodings=tuple(sorted({matrix.encoding for matrix in checkpoint.matrices})),
        base=None if catalogue.base is None else catalogue.base.label,
    )


def assemble(
    target: document.Target,
    settings: document.Settings,
    plan: Plan,
    results: Mapping[str, document.Matrix],
    errors: Mapping[str, str],
    seconds: float,
    peak_rss_bytes: int,
) -> document.Report:
    """Put the results into the plan's order. A task with neither result nor error counts as failed."""
    return _report(target, settings, tasks_of(plan), skipped_of(plan), results, errors, seconds, peak_rss_bytes)


def assemble_record(plan: PlanRecord, results: Mapping[str, document.Matrix]) -> document.Report:
    """The report of an audit that was run in parts, from journals alone. Its seconds are those of all matrices."""
    seconds = sum(results[key].seconds for _, _, key, _, _ in plan.tasks if key in results)
    return _report(plan.target, plan.settings, plan.tasks, plan.skipped, results, {}, seconds, 0)


def tasks_of(plan: Plan) -> tuple[TaskRecord, ...]:
    """What is to be measured, as the journal keeps it."""
    return tuple((t.matrix.id, t.matrix.tensor, t.key, t.matrix.size, t.bytes) for t in plan.tasks)


def skipped_of(plan: Plan) -> tuple[document.SkippedTensor, ...]:
    """What is left out, in the document's words."""
    return tuple(document.SkippedTensor(**asdict(skipped)) for skipped in plan.skipped)


def _report(
    target: document.Target,
    settings: document.Settings,
    tasks: Sequence[TaskRecord],
    skipped: Sequence[document.SkippedTensor],
    results: Mapping[str, document.Matrix],
    errors: Mapping[str, str],
    seconds: float,
    peak_rss_bytes: int,
) -> document.Report:
    matrices = tuple(results[key] for _, _, key, _, _ in tasks if key in results)
    failed = tuple(
        document.FailedMatrix(
            id=name, tensor=tensor, error=errors.get(key, "not measured"), parameters=held, bytes=size
        )
        for name, tensor, key, held, size in tasks
        if key not in results
    )
    measured = [(held, size) for _, _, key, held, size in tasks if key in results]
    amount = document.Amount(
        count=len(measured), parameters=sum(held for held, _ in measured), bytes=sum(size for _, size in measured)
    )
    coverage = count_coverage(len(tasks), amount, skipped, failed)
    return document.Report(
        tool=TOOL,
        target=target,
        settings=settings,
        coverage=coverage,
        summary=summarise(matrices, coverage, settings, round(seconds, 3), peak_rss_bytes),
        matrices=matrices,
    )
