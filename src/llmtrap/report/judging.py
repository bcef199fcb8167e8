"""A report with its findings, and the level and the verdict that follow from them."""

from __future__ import annotations

from llmtrap.report.document import ReferenceUsed, Report
from llmtrap.report.facts import tally
from llmtrap.report.rarity.findings import find
from llmtrap.report.rarity.reference import Reference, shipped_reference
from llmtrap.report.verdict import report_level, verdict


def judged(report: Report, reference: Reference | None) -> Report:
    """The same report, held against published models: with findings, level and verdict.

    Args:
        report: its matrices, tensors and coverage; what it says of itself is replaced.
        reference: the published models; None to hold it against none, and to call nothing rare.
    """
    findings = find(report, reference)
    counts = tally(report.matrices)
    used = None
    if reference is not None:
        lineages = {model.lineage for model in reference.models}
        used = ReferenceUsed(name=reference.name, models=len(reference.models), lineages=len(lineages))
    level = report_level(counts, report.coverage, findings, report.target.cautions)
    summary = report.summary.model_copy(update={"level": level, "reference": used})
    held = report.model_copy(update={"findings": findings, "summary": summary})
    return held.model_copy(update={"summary": summary.model_copy(update={"verdict": verdict(held)})})


def judged_as_usual(report: Report) -> Report:
    """The same, held against the published models that ship with the package."""
    return judged(report, shipped_reference())
