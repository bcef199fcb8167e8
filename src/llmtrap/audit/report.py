"""The document of a run, from its plan and its results."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict

from llmtrap.audit.journal import BesideRecord, PlanRecord
from llmtrap.audit.plan import Plan
from llmtrap.audit.settings import AuditSettings
from llmtrap.checkpoint import Checkpoint
from llmtrap.report import document
from llmtrap.report.coverage import count_coverage
from llmtrap.report.judging import judged_as_usual
from llmtrap.report.summary import summarise
from llmtrap.version import __version__

TOOL = document.Tool(name="llmtrap", version=__version__)


def settings_of(settings: AuditSettings, backend: str) -> document.Settings:
    """The settings as a report prints them; `backend` is the one in use."""
    return document.Settings(
        traps=settings.traps,
        trap_rule=settings.trap_rule,
        alpha=settings.alpha,
        include=settings.include,
        exclude=settings.exclude,
        split_fused=settings.split_fused,
        shuffles=settings.shuffles,
        seed=settings.seed,
        backend=backend,
    )


def target_of(checkpoint: Checkpoint, *, full_paths: bool = False) -> document.Target:
    """What was audited, with its files; of a path on this machine the last part is named, or with `full_paths` all."""
    catalogue = checkpoint.catalogue
    base = catalogue.base
    return document.Target(
        name=catalogue.identity.name if full_paths else catalogue.identity.shown_name,
        kind=catalogue.identity.kind,
        revision=catalogue.identity.revision,
        family=checkpoint.family,
        files=tuple(document.File(path=f.name, bytes=f.size, digest=f.digest) for f in catalogue.files),
        encodings=tuple(sorted({matrix.encoding for matrix in checkpoint.matrices})),
        base=None if base is None else base.label if full_paths else base.shown_label,
        cautions=tuple(document.Caution(kind=item.kind, text=item.text) for item in checkpoint.cautions),
    )


def record_of(
    checkpoint: Checkpoint, settings: document.Settings, plan: Plan, *, full_paths: bool = False
) -> PlanRecord:
    """What a report needs to know beside its matrices, as the journal keeps it."""
    return PlanRecord(
        key=plan.key,
        target=target_of(checkpoint, full_paths=full_paths),
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
    digests: Mapping[str, str] | None = None,
    name: str | None = None,
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
        digests: SHA-256 of files, as `sha256:HEX`, by their names; those that the source knows by itself stay.
        name: what whoever asked for the report calls the target.
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
        target=_with_digests(record.target, digests or {}),
        run=document.Run(
            name=name,
            finished=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
            measuring_seconds=round(sum(matrix.seconds for matrix in matrices), 3),
        ),
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


def _with_digests(target: document.Target, digests: Mapping[str, str]) -> document.Target:
    files = tuple(
        file.model_copy(update={"digest": digests[file.path]}) if file.digest is None and file.path in digests else file
        for file in target.files
    )
    return target.model_copy(update={"files": files})
