"""No serious violation of the accessibility rules that axe-core knows, in both colour schemes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.against import compare
from llmtrap.report.html import write_index
from llmtrap.report.json import write_json

axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")

pytestmark = pytest.mark.browser


def violations(page: Any, part: str = "body") -> list[str]:
    """What axe-core calls serious or critical in a part of the page: the rule and the elements."""
    found = axe_playwright.Axe().run(page, context=part).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_and_a_matrix(open_report: Any, scheme: str, thorough: bool) -> None:
    report = documents.trapped()
    page = open_report(report, compare(report, documents.trapped_base()), color_scheme=scheme)
    assert violations(page) == []
    for button in page.locator("#map-value button").all()[1 : None if thorough else 2]:
        button.click()
        assert violations(page, "#where") == []
    page.locator("[data-open]").first.click()
    page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
    assert violations(page, "#matrix") == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
def test_the_experts(open_report: Any, scheme: str) -> None:
    page = open_report(documents.gpt_oss(4, 8, "org/moe"), color_scheme=scheme)
    page.locator("#map td.many").first.click()
    page.wait_for_selector("#experts-map td")
    assert violations(page, "#where") == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", ["partial", "broken", "clean"])
def test_other_verdicts(open_report: Any, name: str, scheme: str) -> None:
    page = open_report(getattr(documents, name)(), color_scheme=scheme)
    assert violations(page, "#verdict") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_index(open_file: Any, tmp_path: Any, scheme: str) -> None:
    for name in ("clean", "trapped", "broken", "partial"):
        write_json(getattr(documents, name)(), tmp_path / f"{name}.json")
    page = open_file(write_index(tmp_path), color_scheme=scheme)
    assert page.locator("tbody tr").count() == 4
    assert violations(page) == []
