"""The gate's section of the page: no serious violation of the rules of accessibility that axe-core knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.report.test_page_access import violations
from tests.support import documents

from llmtrap.gate.outputs.html import to_page
from llmtrap.gate.run import GateResult

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gate_s_section(judged, open_file: Any, tmp_path: Path, scheme: str) -> None:
    now, base = documents.trapped(), documents.trapped_base()
    path = tmp_path / "gate.html"
    path.write_text(to_page(GateResult(judged(now, base), now, base, 0)), encoding="utf-8")
    page = open_file(path, color_scheme=scheme)
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    assert page.locator("#gate tbody tr").count() >= 1
    assert violations(page, "#gate") == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
