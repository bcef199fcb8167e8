"""The address of the documentation: from the package's metadata, and in every output beside what it explains."""

from __future__ import annotations

from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from tests.support import documents

from llmtrap.report import documentation
from llmtrap.report.explanations import EXPLANATIONS
from llmtrap.report.html import to_html
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import to_text

DOCS = Path(__file__).parents[2] / "docs"
_folder = documentation._folder


def test_every_finding_leads_to_a_page_that_is_there(documentation: str) -> None:
    report = documents.trapped()
    html, markdown, text = to_html(report), to_markdown(report), to_text(report)
    for page in ("what-to-do", "reference", "definitions"):
        assert f'<a href="{documentation}/{page}.md"' in html
        assert f"(<{documentation}/{page}.md>)" in markdown
        assert f"docs/{page}.md" in text
    assert all((DOCS / f"{item.page}.md").is_file() for item in EXPLANATIONS.values())


def test_the_address_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Message()
    told["Project-URL"] = "Source, https://example.invalid"
    told["Project-URL"] = "Documentation, https://example.invalid/docs/index.md"
    monkeypatch.setattr(documentation, "metadata", lambda _: told)
    assert _folder.__wrapped__() == "https://example.invalid/docs"

    def missing(name: str) -> Message:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(documentation, "metadata", missing)
    assert _folder.__wrapped__() is None


def test_without_an_address_the_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "_folder", lambda: None)
    assert "(docs/what-to-do.md)" in to_markdown(documents.trapped())
    assert 'href="None' not in to_html(documents.trapped())
