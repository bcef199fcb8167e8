"""The outputs of a report as text, in a table: adding one is adding a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmtrap.report.badge import to_badge
from llmtrap.report.card import to_model_card
from llmtrap.report.document import Report
from llmtrap.report.html import to_html
from llmtrap.report.json import to_json
from llmtrap.report.markdown import to_markdown
from llmtrap.report.table import to_csv

__all__ = ["REPORT_OUTPUTS", "Face"]


@dataclass(frozen=True)
class Face:
    """How a report is written in one format, and the name of its file in the default folder; None where it is not."""

    write: Callable[[Report], str]
    default: str | None = None


REPORT_OUTPUTS: dict[str, Face] = {
    "json": Face(to_json, "report.json"),
    "html": Face(to_html, "report.html"),
    "markdown": Face(to_markdown, "report.md"),
    "csv": Face(to_csv),
    "model-card": Face(to_model_card),
    "badge": Face(to_badge),
}
