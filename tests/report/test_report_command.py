"""`llmtrap report` and `llmtrap schema`, called as a shell would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import documents
from typer.testing import CliRunner, Result

from llmtrap.cli import app
from llmtrap.report.against import compare
from llmtrap.report.html import to_html
from llmtrap.report.json import write_json
from llmtrap.report.markdown import to_markdown
from llmtrap.report.schema import json_schema
from llmtrap.report.text import plain


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_json(documents.trapped(), tmp_path / "report.json")
    write_json(documents.trapped_base(), tmp_path / "base.json")
    return tmp_path


def test_it_prints_the_report(saved: Path) -> None:
    assert call("report", saved / "report.json").stdout == plain(documents.trapped())


def test_it_writes_every_face_against_a_base(saved: Path) -> None:
    report, base = documents.trapped(), documents.trapped_base()
    result = call(
        "report", saved / "report.json", "--against", saved / "base.json",
        "--html", saved / "out" / "page.html", "--markdown", saved / "out" / "page.md",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "")
    assert (saved / "out" / "page.html").read_text(encoding="utf-8") == to_html(report, compare(report, base))
    assert (saved / "out" / "page.md").read_text(encoding="utf-8") == to_markdown(report, compare(report, base))


def test_it_writes_an_index(saved: Path) -> None:
    assert call("report", "--index", saved).exit_code == 0
    assert "org/base-0.5b" in (saved / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to show. Name a report, or a folder with --index."),
        (
            ["--html", "x.html", "--index", "."],
            "--html needs a report.",
        ),
        (["missing.json"], "missing.json: there is no such report. Check the path."),
    ],
)
def test_wrong_calls(arguments: list[str], words: str) -> None:
    result = call("report", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_the_schema_is_printed() -> None:
    assert json.loads(call("schema").stdout) == json_schema()
