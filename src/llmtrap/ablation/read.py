"""Read an ablation document, and put its labels into a report of the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from llmtrap.ablation.document import AblationReport
from llmtrap.checkpoint.strict_json import memory_of
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import TargetError, UsageError
from llmtrap.printable import printable
from llmtrap.report.document import Matrix, Report
from llmtrap.spectra.measured import Trap

LIMIT_BYTES = 50_000_000
MOST_MEMORY = 500_000_000
_REMEDY = "Give a file that `llmtrap ablate --json` wrote"


def read_ablation(path: Path) -> AblationReport:
    """Read a file that `llmtrap ablate --json` wrote.

    Raises:
        TargetError: there is no such file, or it is no ablation document.
    """
    try:
        content = read_document(path, LIMIT_BYTES, "ablation")
    except DocumentError as error:
        raise TargetError(error.problem, file=str(path), remedy=error.remedy) from error
    if memory_of(np.frombuffer(content, np.uint8)) > MOST_MEMORY:
        raise TargetError("it would take more memory than any ablation", file=str(path), remedy=_REMEDY)
    try:
        return AblationReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its whole"
        problem = f"this is no ablation of llmtrap: {printable(where, 200)}: {printable(first['msg'], 200)}"
        raise TargetError(problem, file=str(path), remedy=_REMEDY) from None


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
