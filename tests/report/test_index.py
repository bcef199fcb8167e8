"""The index page over a folder of reports."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.support import documents

from llmtrap.errors import TargetError
from llmtrap.report.html import write_index
from llmtrap.report.json import to_json, write_json


def test_a_row_a_report_with_links_to_its_faces(tmp_path: Path) -> None:
    write_json(documents.trapped(), tmp_path / "trapped model" / "report.json")
    (tmp_path / "trapped model" / "report.html").write_text("")
    (tmp_path / "trapped model" / "report.md").write_text("")
    write_json(documents.clean(), tmp_path / "clean.json")
    (tmp_path / "other.json").write_text('{"weight_map": {}}')
    (tmp_path / "cut.json").write_text('{"schema": ')
    (tmp_path / "later.json").write_text('{"schema": "llmtrap.report/3"}')
    (tmp_path / "run.json").write_text('{"schema": "llmtrap.calibration/1"}')
    (tmp_path / "run.html").write_text("")

    text = write_index(tmp_path).read_text(encoding="utf-8")

    rows = re.findall(r'<th scope="row">(.*?)</tr>', text, re.S)
    assert [re.findall(r">([^<]*0\.5b)<", row)[0] for row in rows] == ["org/clean-0.5b", "org/trapped-0.5b"]
    assert re.findall(r'href="([^"]+)"', rows[1]) == [
        "trapped%20model/report.html",
        "trapped%20model/report.html",
        "trapped%20model/report.md",
        "trapped%20model/report.json",
    ]
    assert "Unusual" in rows[1]
    assert "Usual" in rows[0]
    assert "<code>llmtrap audit org/clean-0.5b --revision 0123456789abcdef0123456789abcdef01234567</code>" in rows[0]
    assert re.findall(r"<li>(run \(calibration\): .*?)</li>", text) == [
        'run (calibration): <a href="run.html">page</a>, <a href="run.json">JSON</a>'
    ]
    unread = re.findall(r"<li><code>(.*?)</code>: (.*?)</li>", text)
    assert unread == [
        ("cut.json", "the file is cut short: the document does not end by byte 11"),
        (
            "later.json",
            "the report has the schema &#39;llmtrap.report/3&#39;, and this llmtrap reads &#39;llmtrap.report/2&#39;",
        ),
        ("other.json", "this is JSON, but not a report of llmtrap"),
    ]
    assert "script-src &#39;none&#39;" in text
    assert "<script" not in text


def test_names_of_files_and_models_are_escaped(tmp_path: Path) -> None:
    write_json(documents.hostile(), tmp_path / 'javascript:alert(1) "x" <img>.json')
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert 'href="javascript%3Aalert%281%29%20%22x%22%20%3Cimg%3E.json"' in text
    assert "<img" not in text
    assert "</script>" not in text


def test_a_folder_without_reports(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no such folder"):
        write_index(tmp_path / "none")
    with pytest.raises(TargetError, match="no report in this folder"):
        write_index(tmp_path)


def test_what_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    """Names that are no UTF-8, FIFOs, devices and circles, beside one report."""
    write_json(documents.clean(), tmp_path / "good.json")
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "folder.json").mkdir()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff##[x]y.json"))
    odd.write_text(to_json(documents.trapped()))
    (tmp_path / "huge.json").write_text('{"schema":"llmtrap.report/2","settings":{"shuffles":' + "9" * 400 + "}}")
    text = write_index(tmp_path).read_text()
    assert "good.json" in text
    assert "%FF%23%23%5Bx%5Dy.json" in text
    assert "not a regular file" in text
