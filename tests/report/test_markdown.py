"""The Markdown output: whole expected documents, and names that stay inside their code spans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import documents
from tests.support.expected import assert_expected

from llmtrap.report.against import compare
from llmtrap.report.calibrated import calibrated
from llmtrap.report.formatting import printable
from llmtrap.report.html import to_html
from llmtrap.report.markdown import code, to_markdown, write_markdown
from llmtrap.report.text import plain

EXPECTED = Path(__file__).parent / "expected"


@pytest.mark.parametrize("name", ["clean", "trapped", "over_trained", "partial", "empty", "broken", "hostile"])
def test_the_whole_document(name: str) -> None:
    assert_expected(EXPECTED / f"{name}.md", _without_the_profile(to_markdown(getattr(documents, name)())))


def test_memory_that_nobody_knows_is_not_said_to_be_nothing() -> None:
    """An audit joined from its parts."""
    report = documents.clean()
    joined = report.model_copy(update={"summary": report.summary.model_copy(update={"peak_rss_bytes": 0})})
    for output in (to_markdown, plain, to_html):
        assert "of memory" in output(report)
        assert "of memory" not in output(joined)


def test_the_whole_document_against_a_base() -> None:
    report, base = documents.trapped(), documents.trapped_base()
    text = to_markdown(report, compare(report, base))
    assert_expected(EXPECTED / "trapped_against_base.md", _without_the_profile(text))


def _without_the_profile(text: str) -> str:
    """The calibration's sentence is cited once; its figures change with the profile that ships."""
    assert text.count(calibrated()) == 1
    return text.replace(calibrated(), "(the calibration's sentence)")


def test_what_is_written_is_what_is_rendered(tmp_path: Path) -> None:
    report = documents.partial()
    write_markdown(report, tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == to_markdown(report)


def test_long_tables_are_cut_and_say_so() -> None:
    text = to_markdown(documents.gpt_oss_20b(), limit=3)
    table = text[text.index("## Worst matrices") :]
    assert len(re.findall(r"^\| `layers", table, re.M)) == 3
    assert re.search(r"And \d+ matrices more in the full report\.", table)


@given(st.text(max_size=60))
def test_a_name_cannot_leave_its_code_span(name: str) -> None:
    span = code(name)
    if span.startswith("`"):
        assert re.fullmatch(r"`[A-Za-z0-9_./:-]+`", span)
    else:
        assert re.fullmatch(r"<code>(?:[A-Za-z0-9_./:-]|&#\d+;)*</code>", span)
        shown = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), span[6:-7])
        assert shown == printable(name, 160)
