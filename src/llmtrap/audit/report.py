"""The document of a run, from its plan and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from llmtrap.audit.journal import BesideRecord, PlanRecord
from llmtrap.audit.plan import Plan
from llmtrap.checkpoint import Checkpoint
from llmtrap.report import document
from llmtrap.report.coverage import count_coverage
from llmtrap.report.judging import judged_as_usual
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
        cautions=tuple(document.Caution(kind=item.kind, text=item.text) for item in checkpoint.cautions),
    )


def record_of(checkpoint: Checkpoint, settings: document.Settings, plan: Plan) -> PlanRecord:
    """What a report needs to know beside its matrices, as the journal keeps it."""
    return PlanRecord(
        key=plan.key,
        target=target_of(checkpoint),
        settings=settings,
        skipped=tuple(document.SkippedTensor(**asdict(item)) for item in plan.skipped),
        tasks=tuple((t.matrix.id, t.matrix.tensor, t.key, t.matrix.size, t.bytes) for t in plan.tasks),
    )


def assemble(
    record: PlanRecord,
    results: Mapping[str, document.Matrix],
    beside: BesideRecord,
    *,
    errors: Mapping[str, str] | None = None,
    seconds: float,
    peak_rss_bytes: int = 0,
    remembered: document.Remembered | None = None,
) -> document.Report:
    """Put the results into the plan's order. A task with neither result nor error counts as failed.

    Args:
        record: what was planned.
        results: the matrices measured, by the keys of their tasks.
        beside: what the tensors beside the matrices hold.
        errors: why others were not, by the same keys.
        seconds: how long the audit took.
        peak_rss_bytes: the most memory it held; 0 where that is not known.
        remembered: which of the results came from a journal.
    """
    known = errors or {}
    matrices = tuple(results[key] for _, _, key, _, _ in record.tasks if key in results)
    failed = tuple(
        document.FailedMatrix(id=name, tensor=tensor, error=known.get(key, "not measured"), parameters=held, bytes=size)
        for name, tensor, key, held, size in record.tasks
        if key not in results
    )
    measured = [(held, size) for _, _, key, held, size in record.tasks if key in results]
    amount = document.Amount(
        count=len(measured), parameters=sum(held for held, _ in measured), bytes=sum(size for _, size in measured)
    )
    coverage = count_coverage(len(record.tasks), amount, beside.skipped, failed)
    report = document.Report(
        tool=TOOL,
        target=record.target,
        settings=record.settings,
        coverage=coverage,
        summary=summarise(
            matrices,
            coverage,
            record.settings,
            round(seconds, 3),
            peak_rss_bytes,
            beside.findings,
            remembered,
            record.target.cautions,
        ),
        matrices=matrices,
        tensors=beside.findings,
    )
    return judged_as_usual(report)
