"""The HTML output: the verdict of the gate, then the report's own page of the changed matrices, against the base."""

from __future__ import annotations

from functools import cache

from jinja2 import PackageLoader, Template
from markupsafe import Markup

from llmtrap.gate.document import Judgement
from llmtrap.gate.outputs.phrases import facts, gap_words
from llmtrap.gate.run import GateResult
from llmtrap.report.against import compare
from llmtrap.report.html import LeadingSection, to_html
from llmtrap.report.html.page import environment

LIMIT = 50
_WORDS = {"passed": "Passed", "violated": "Violated", "incomplete": "Not judged"}


def to_page(gated: GateResult) -> str:
    """One page: what the gate says stands ahead of the report, whose traps may be the base's own."""
    section = LeadingSection("gate", "Gate", _WORDS[gated.judgement.outcome], _section(gated.judgement))
    comparison = gated.comparison
    if comparison is None and gated.base is not None:
        comparison = compare(gated.report, gated.base, unchanged=gated.judgement.counts.unchanged)
    return to_html(gated.report, comparison, ahead=section)


def _section(judgement: Judgement, limit: int = LIMIT) -> Markup:
    listed = [*judgement.errors, *judgement.warnings, *judgement.ignored]
    gaps = [item for item in judgement.not_judged if item.blocking]
    rendered = _template().render(judgement=judgement, listed=listed, limit=limit, facts=facts(judgement), gaps=gaps)
    return Markup(rendered)  # noqa: S704 - rendered by a template that escapes everything


@cache
def _template() -> Template:
    made = environment().overlay(loader=PackageLoader("llmtrap.gate.outputs"))
    made.filters = {**made.filters, "gap": gap_words}
    return made.get_template("gate.html.j2")
