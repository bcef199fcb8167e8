"""The HTML output of a report: one self-contained page, and an index page over a folder of reports."""

from __future__ import annotations

from llmtrap.report.html.index import write_index
from llmtrap.report.html.leading_section import LeadingSection
from llmtrap.report.html.page import to_html, write_html

__all__ = ["LeadingSection", "to_html", "write_html", "write_index"]
