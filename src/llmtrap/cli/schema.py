"""`llmtrap schema`: print the JSON Schema of a document that llmtrap writes."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from llmtrap.cli.console import guarded


class DocumentName(StrEnum):
    """Documents with a published schema."""

    REPORT = "report"
    GATE = "gate"
    ABLATION = "ablation"
    CALIBRATION = "calibration"
    TRAJECTORY = "trajectory"


def schema_command(
    document: Annotated[DocumentName, typer.Argument(help="Which document.")] = DocumentName.REPORT,
) -> None:
    """Print the JSON Schema of what a command writes with --json."""
    with guarded():
        typer.echo(json.dumps(schema_of(document), indent=2))


def schema_of(document: DocumentName) -> dict[str, Any]:
    """The schema of a document as it is written (draft 2020-12): every key is always there, and no other."""
    from llmtrap.report.schema import published_schema

    # Imported here: each belongs to a command of its own.
    if document is DocumentName.REPORT:
        from llmtrap.report.schema import json_schema

        return json_schema()
    if document is DocumentName.GATE:
        from llmtrap.gate import document as gate

        return published_schema(gate.Judgement, gate.SCHEMA)
    if document is DocumentName.ABLATION:
        from llmtrap.ablation import document as ablation

        return published_schema(ablation.AblationReport, ablation.SCHEMA)
    if document is DocumentName.TRAJECTORY:
        from llmtrap.trajectory import document as trajectory

        return published_schema(trajectory.Trajectory, trajectory.SCHEMA)
    from llmtrap.calibrate import document as calibration

    return published_schema(calibration.CalibrationReport, calibration.SCHEMA)
