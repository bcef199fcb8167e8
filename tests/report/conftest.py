"""Fixtures of the outputs' tests: a page in a browser, and a real report with predicted traps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.audits import audit
from tests.support.browser import OpenPage
from tests.support.planting import write_planted

from llmtrap.report.against import Comparison
from llmtrap.report.document import Report
from llmtrap.report.html import write_html


@pytest.fixture(autouse=True)
def documentation(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of the documentation that does not depend on how the package was installed."""
    address = "https://docs.example.invalid/llmtrap"
    monkeypatch.setattr("llmtrap.report.documentation._folder", lambda: address)
    return address


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


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with traps that can be predicted and with traps that cannot."""
    return write_planted(tmp_path_factory.mktemp("planted") / "checkpoint")


@pytest.fixture(scope="session")
def predicted(planted: Path) -> Report:
    """Its real audit without α: an entry and a mean are predicted, two entries of one matrix are measured."""
    return audit(planted, alpha=False)
