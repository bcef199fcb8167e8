"""The JSON output: the contract itself, one matrix a line, so that two reports can be compared with diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmtrap.printable import break_commands_in_json
from llmtrap.report.document import Report
from llmtrap.report.write import write_whole


def to_json(report: Report) -> str:
    """The document as ASCII JSON text: the head indented, then one line a matrix.

    ASCII, so that no name in a checkpoint can steer the terminal that shows the file, nor a CI runner.
    """
    return matrix_a_line(report.to_json_dict())


def matrix_a_line(document: dict[str, Any]) -> str:
    """A document with `matrices` as such text."""
    head = json.dumps({key: value for key, value in document.items() if key != "matrices"}, indent=2, allow_nan=False)
    matrices = document["matrices"]
    lines = ",\n".join("    " + json.dumps(matrix, allow_nan=False, separators=(", ", ": ")) for matrix in matrices)
    body = f"[\n{lines}\n  ]" if matrices else "[]"
    return break_commands_in_json(f'{head[: -len(chr(10) + "}")]},\n  "matrices": {body}\n}}\n')


def write_json(report: Report, path: Path, *, within: Path | None = None) -> None:
    """Write the JSON output, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_json(report).encode("ascii"), within=within)
