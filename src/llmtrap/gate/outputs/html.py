"""The HTML output: the report's own page, against its base. Of two checkpoints it shows the changed matrices."""

from __future__ import annotations

from llmtrap.gate.run import Gated
from llmtrap.report.against import compare
from llmtrap.report.html import to_html


def to_page(gated: Gated) -> str:
    """The page of the target's report."""
    return to_html(gated.report, None if gated.base is None else compare(gated.report, gated.base))
