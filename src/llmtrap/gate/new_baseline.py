"""The report of a judged target as the baseline of the next gates: when it may be one, and how it is written."""

from __future__ import annotations

from pathlib import Path

from llmtrap.errors import OutputError, TargetError, UsageError
from llmtrap.gate.document import Judgement
from llmtrap.gate.rules import COVERAGE
from llmtrap.printable import printable
from llmtrap.report.document import Report
from llmtrap.report.formatting import plural
from llmtrap.report.json import write_json
from llmtrap.report.read import read_report
from llmtrap.report.trial import try_writing

_NON_FINITE = "LT005"


def what_is_replaced(path: Path) -> str | None:
    """What a baseline would be written over, in words; None where nothing is there. To be asked before measuring.

    Raises:
        UsageError: the name is not that of a report.
        OutputError: it cannot be written there, or what is there is no report.
    """
    if path.suffix != ".json":
        raise UsageError("a baseline is a report, whose name ends in .json", file=str(path), remedy="Name it so")
    try_writing(path)
    if not path.exists():
        return None
    try:
        report = read_report(path)
    except TargetError as error:
        problem = f"what is there is not a report that can be read, and is not replaced: {error.problem}"
        raise OutputError(problem, file=str(path), remedy="Name another file, or delete this one") from error
    when = "" if report.run is None else f" of {report.run.finished}"
    return f"the report of {printable(report.target.name, 160)}{when} ({plural(len(report.matrices), 'matrix')})"


def why_no_baseline(judgement: Judgement, whole: Report | None = None) -> str | None:
    """Why a target must not be what others are judged against; None where it may be.

    A baseline with broken values would make them look inherited, and what it does not hold would never be judged.
    A violation alone is no reason: a baseline is renewed to let what was found count as known.

    Args:
        judgement: of the target.
        whole: the target's report, once it has been made.
    """
    broken = next((finding for finding in judgement.findings if finding.rule == _NON_FINITE), None)
    if broken is not None:
        where = "" if broken.id is None else f"{printable(broken.id, 160)}: "
        return f"the target has broken values: {where}{broken.message}"
    if judgement.outcome == "incomplete":
        return f"the target was not wholly judged: {judgement.headline}"
    gap = next((finding.message for finding in judgement.errors if finding.rule == COVERAGE), None)
    gap = gap or next((f"{item.rule} {item.name}: {item.reason}" for item in judgement.unjudged), None)
    if gap is not None:
        return f"the target was not wholly judged: {gap}"
    return None if whole is None else _gap_of(whole)


def _gap_of(report: Report) -> str | None:
    """Broken values in a report, or weights that it does not hold."""
    for matrix in report.matrices:
        if matrix.non_finite is not None:
            return f"the target has broken values: {printable(matrix.id, 160)}"
    for tensor in report.tensors:
        if tensor.nan or tensor.inf:
            return f"the target has broken values: {printable(tensor.tensor, 160)}"
    coverage = report.coverage
    if coverage.failed:
        first = coverage.failed[0]
        return f"{printable(first.id, 160)} could not be measured: {printable(first.error, 200)}"
    if report.settings.include or report.settings.exclude or coverage.audited < coverage.planned:
        return "its report is of a part of the model"
    counts = coverage.counts
    if counts is not None and (counts.unreadable.count or counts.unmeasured.count or counts.file_not_read.count):
        return "some of its weights could not be read: `llmtrap inspect` lists them"
    return None


def write_baseline(judgement: Judgement, whole: Report | None, path: Path) -> None:
    """Write the report of a target as the new baseline, whole or not at all.

    Raises:
        TargetError: it must not be a baseline; the message says why.
        OutputError: it could not be written.
    """
    why = why_no_baseline(judgement, whole)
    if why is not None or whole is None:
        problem = f"no baseline was written: {why or 'there is no report of the target'}"
        raise TargetError(problem, file=str(path), remedy="Mend the target, and gate it again")
    write_json(whole, path)
