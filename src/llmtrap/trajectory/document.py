"""The trajectory document, `llmtrap.trajectory/1`: checkpoints of one run in order, and what changes between them.

A matrix is listed where it was measured; at later points it is the same until it is listed again.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from llmtrap.models import Count, Items, Model
from llmtrap.report.document import Coverage, Finding, Matrix, Report, Settings, Summary, Target, TensorFinding, Tool
from llmtrap.spectra.measured import CauseKind

SCHEMA: Final = "llmtrap.trajectory/1"


class Point(Model):
    """One checkpoint of the run."""

    name: str = Field(description="the folder, the file or the hub revision")
    step: Count | None = Field(description="the step that the name gives; null where it gives none")
    label: str = Field(description="the step in words, with the stage where there are several; else the name")
    target: Target
    coverage: Coverage
    summary: Summary = Field(description="of all its matrices, those taken over included")
    findings: Items[Finding] = ()
    tensors: Items[TensorFinding] = ()
    measured: Count = Field(description="matrices that were read and measured at this point")
    unchanged: Count = Field(description="matrices whose bytes equal the point before's: taken over")
    measured_bytes: Count
    missing: Items[str] = Field(default=(), description="matrices of the point before that are not here")
    new_traps: Items[str] | None = Field(
        description="matrices in which a trap first stands clear here that they did not have when they were first "
        "measured; null for the first point"
    )


class MeasuredMatrix(Model):
    """A matrix as it was measured at a point, without histograms. `digest` is of the stored bytes, where it is kept."""

    point: Count
    digest: str | None = None
    matrix: Matrix


class TrapAt(Model):
    """A trap at a point at which its matrix was measured."""

    point: Count
    strength: float
    z: float
    sigmas: float | None


class TrapHistory(Model):
    """One trap through the run: an entry by its place, a mean shift or a heavy tail by its matrix (the strongest)."""

    matrix: str
    kind: CauseKind
    row: Count | None
    column: Count | None
    first: Count = Field(description="the point at which it was first found")
    last: Count = Field(description="the last point at which it is there")
    gone: bool = Field(description="whether a later point no longer has it")
    growth: float | None = Field(description="strength at its last measurement over that at its first")
    at: Items[TrapAt]


class Trajectory(Model):
    """The run, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal["llmtrap.trajectory/1"] = Field(default=SCHEMA, alias="schema")
    tool: Tool
    name: str
    settings: Settings
    points: Items[Point]
    matrices: Items[MeasuredMatrix]
    traps: Items[TrapHistory]

    @model_validator(mode="after")
    def _points_exist(self) -> Trajectory:
        last = max((item.point for item in self.matrices), default=-1)
        if last >= len(self.points):
            raise ValueError(f"a matrix of point {last}, and there are {len(self.points)} points")
        return self

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)


def matrices_at(trajectory: Trajectory, point: int) -> dict[str, Matrix]:
    """The matrices of a point by id, in the order of the document: those measured there, and those taken over."""
    missing_until: dict[str, int] = {}
    for place, it in enumerate(trajectory.points[: point + 1]):
        gone = (*it.missing, *(failed.id for failed in it.coverage.failed))
        missing_until |= dict.fromkeys(gone, place)
    found: dict[str, MeasuredMatrix] = {}
    for item in trajectory.matrices:
        if item.point <= point:
            found[item.matrix.id] = item
    return {name: item.matrix for name, item in found.items() if missing_until.get(name, -1) < item.point}


def report_at(trajectory: Trajectory, point: int) -> Report:
    """The report of a point, without histograms."""
    it = trajectory.points[point]
    return Report(
        tool=trajectory.tool, target=it.target, settings=trajectory.settings, coverage=it.coverage, summary=it.summary,
        findings=it.findings, matrices=tuple(matrices_at(trajectory, point).values()), tensors=it.tensors,
    )  # fmt: skip
