"""Read an ablation document, and put its labels into a report of the same model."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from llmtrap.ablation.document import AblationReport
from llmtrap.errors import TargetError, UsageError
from llmtrap.report.document import Matrix, Report, Trap

LIMIT_BYTES = 50_000_000


def read_ablation(path: Path) -> AblationReport:
    """Read a file that `llmtrap ablate --json` wrote.

    Raises:
        TargetError: there is no such file, or it is no ablation document.
    """
    remedy = "Give a file that `llmtrap ablate --json` wrote"
    if not path.is_file():
        raise TargetError("there is no such file", file=str(path), remedy=remedy)
    if path.stat().st_size > LIMIT_BYTES:
        raise TargetError(f"over {LIMIT_BYTES:,} bytes, more than any ablation", file=str(path), remedy=remedy)
    try:
        return AblationReport.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        what = "no ablation document" if isinstance(error, ValidationError) else "not JSON"
        raise TargetError(f"this is {what}", file=str(path), remedy=remedy) from None


def with_activity(report: Report, ablation: AblationReport) -> Report:
    """The report with what the ablation calls each entry that is the cause of a trap.

    Raises:
        UsageError: the two are of different models.
    """
    if (report.target.name, report.target.revision) != (ablation.target.name, ablation.target.revision):
        raise UsageError(
            f"the ablation is of {ablation.target.name}, and the report of {report.target.name}",
            remedy="Give the ablation of this model",
        )
    labels = {(c.matrix, c.row, c.column): c.label for c in ablation.candidates if c.kind == "entry"}

    def labelled(matrix: Matrix, trap: Trap) -> Trap:
        label = labels.get((matrix.id, trap.cause.row, trap.cause.column))
        if label is None:
            return trap
        return trap.model_copy(update={"cause": trap.cause.model_copy(update={"activity": label})})

    matrices = []
    for matrix in report.matrices:
        if matrix.traps is None or not matrix.traps.found:
            matrices.append(matrix)
            continue
        found = tuple(labelled(matrix, trap) for trap in matrix.traps.found)
        matrices.append(matrix.model_copy(update={"traps": matrix.traps.model_copy(update={"found": found})}))
    return report.model_copy(update={"matrices": tuple(matrices)})
