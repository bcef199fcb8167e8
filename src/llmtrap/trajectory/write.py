"""Write a trajectory as JSON, one measured matrix a line."""

from __future__ import annotations

from pathlib import Path

from llmtrap.report.json import matrix_a_line
from llmtrap.report.write import write_whole
from llmtrap.trajectory.document import Trajectory


def write_trajectory(trajectory: Trajectory, path: Path, *, within: Path | None = None) -> None:
    """Write the JSON document, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_json(trajectory).encode("ascii"), within=within)


def to_json(trajectory: Trajectory) -> str:
    """The document as ASCII JSON text."""
    head = trajectory.model_copy(update={"matrices": ()}).to_json_dict()
    return matrix_a_line(head, (matrix.model_dump(mode="json") for matrix in trajectory.matrices))
