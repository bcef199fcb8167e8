"""Fixtures of the page's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.browser import OpenPage

from llmtrap.report.against import Comparison
from llmtrap.report.document import Report
from llmtrap.report.html import write_html


@pytest.fixture
def open_report(open_file: OpenPage, tmp_path: Path) -> OpenPage:
    """Write the page of a report and open it."""

    def open_it(report: Report, comparison: Comparison | None = None, fragment: str = "", **options: Any) -> Any:
        path = tmp_path / "report.html"
        write_html(report, path, comparison)
        page = open_file(path, fragment, **options)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    return open_it
