"""The document of a run, from its plan and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmtrap.audit.journal import PlanRecord
from llmtrap.audit.plan import Plan
from llmtrap.checkpoint import Checkpoint
from llmtrap.report import document
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
    tasks = [(task.matrix.id, task.matrix.tensor, task.key) for task in plan.tasks]
    skipped = [document.SkippedTensor(tensor=s.tensor, reason=s.reason) for s in plan.skipped]
    return _report(target, settings, tasks, skipped, results, errors, seconds, peak_rss_bytes)


def assemble_record(plan: PlanRecord, results: Mapping[str, document.Matrix]) -> document.Report:
    """The report of an audit that was run in parts, from journals alone. Its seconds are those of all matrices."""
    seconds = sum(results[key].seconds for _, _, key in plan.tasks if key in results)
    return _report(plan.target, plan.settings, plan.tasks, plan.skipped, results, {}, seconds, 0)


def _report(
    target: document.Target,
    settings: document.Settings,
    tasks: Iterable[tuple[str, str, str]],
    skipped: Iterable[document.SkippedTensor],
    results: Mapping[str, document.Matrix],
    errors: Mapping[str, str],
    seconds: float,
    peak_rss_bytes: int,
) -> document.Report:
    planned = list(tasks)
    matrices = tuple(results[key] for _, _, key in planned if key in results)
    failed = tuple(
        document.FailedMatrix(id=name, tensor=tensor, error=errors.get(key, "not measured"))
        for name, tensor, key in planned
        if key not in results
    )
    coverage = document.Coverage(planned=len(planned), audited=len(matrices), skipped=tuple(skipped), failed=failed)
    return document.Report(
        tool=TOOL,
        target=target,
        settings=settings,
        coverage=coverage,
        summary=summarise(matrices, coverage, settings, round(seconds, 3), peak_rss_bytes),
        matrices=matrices,
    )
