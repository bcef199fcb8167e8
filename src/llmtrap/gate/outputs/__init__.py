"""The gate's outputs, in a table: adding one is adding a file and a line here."""

from __future__ import annotations

from collections.abc import Callable

from llmtrap.gate.outputs.github import to_annotations
from llmtrap.gate.outputs.html import to_page
from llmtrap.gate.outputs.json import to_json
from llmtrap.gate.outputs.junit import to_junit
from llmtrap.gate.outputs.markdown import to_markdown
from llmtrap.gate.outputs.sarif import to_sarif
from llmtrap.gate.outputs.text import to_text
from llmtrap.gate.run import GateResult

__all__ = ["OUTPUTS"]

OUTPUTS: dict[str, Callable[[GateResult], str]] = {
    "text": lambda gated: to_text(gated.judgement),
    "json": lambda gated: to_json(gated.judgement),
    "markdown": lambda gated: to_markdown(gated.judgement),
    "sarif": lambda gated: to_sarif(gated.judgement),
    "junit": lambda gated: to_junit(gated.judgement),
    "github": lambda gated: to_annotations(gated.judgement),
    "html": to_page,
}
