"""Write a report in the form that a file's name asks for. A new form is a line of `_FORMS`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmtrap.errors import UsageError
from llmtrap.report.document import Report
from llmtrap.report.frames import to_dataframe
from llmtrap.report.html import write_html
from llmtrap.report.json import write_json
from llmtrap.report.markdown import write_markdown
from llmtrap.report.table import to_csv
from llmtrap.report.write import write_whole


def save(report: Report, path: Path) -> Path:
    """Write the report, whole or not at all.

    Raises:
        UsageError: no form is known by this ending.
        OutputError: it cannot be written.
    """
    write = _FORMS.get(path.suffix.lower())
    if write is None:
        problem = f"no form of a report ends in {path.suffix!r}" if path.suffix else "the name has no ending"
        raise UsageError(problem, file=str(path), remedy=f"Choose one of: {', '.join(_FORMS)}")
    write(report, path)
    return path


def write_csv(report: Report, path: Path) -> None:
    """One line a matrix; a name that a spreadsheet would take for a formula has an apostrophe before it."""
    write_whole(path, to_csv(report).encode("utf-8", "backslashreplace"))


def write_parquet(report: Report, path: Path) -> None:
    """The data frame's own Parquet.

    Raises:
        MissingExtraError: no library of data frames is installed.
    """
    frame, held = to_dataframe(report), io.BytesIO()
    (frame.write_parquet if hasattr(frame, "write_parquet") else frame.to_parquet)(held)
    write_whole(path, held.getvalue())


_FORMS: Final[dict[str, Callable[[Report, Path], None]]] = {
    ".html": write_html,
    ".json": write_json,
    ".md": write_markdown,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
