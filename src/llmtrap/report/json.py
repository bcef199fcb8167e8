"""The JSON output: the contract itself, one matrix a line, so that two reports can be compared with diff."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmtrap.printable import break_commands_in_json
from llmtrap.report.document import Report
from llmtrap.report.write import write_whole


def to_json(report: Report) -> str:
    """The document as ASCII JSON text: the head indented, then one line a matrix.

    ASCII, so that no name in a checkpoint can steer the terminal that shows the file, nor a CI runner.
    """
    head = report.model_copy(update={"matrices": ()}).to_json_dict()
    return matrix_a_line(head, (matrix.model_dump(mode="json") for matrix in report.matrices))


def matrix_a_line(head: dict[str, Any], matrices: Iterable[dict[str, Any]]) -> str:
    """A document as such text; its matrices come one by one, and are the last member."""
    without = {key: value for key, value in head.items() if key != "matrices"}
    text = json.dumps(without, indent=2, allow_nan=False)
    parts = [text[: -len("\n}")], ',\n  "matrices": [']
    for number, matrix in enumerate(matrices):
        line = json.dumps(matrix, allow_nan=False, separators=(", ", ": "))
        parts.append(f"{',' if number else ''}\n    {break_commands_in_json(line)}")
    parts[0] = break_commands_in_json(parts[0])
    return "".join((*parts, "\n  ]\n}\n" if len(parts) > 2 else "]\n}\n"))


def write_json(report: Report, path: Path, *, within: Path | None = None) -> None:
    """Write the JSON output, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_json(report).encode("ascii"), within=within)
