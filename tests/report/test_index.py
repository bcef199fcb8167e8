"""The index page over a folder of reports."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents

from llmtrap.errors import TargetError
from llmtrap.report.document import Run
from llmtrap.report.html import write_index
from llmtrap.report.html.assets import sort_script
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

    rows = re.findall(r'<th scope="row"[^>]*>(.*?)</tr>', text, re.S)
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
    # The one script is the page's own, by its hash: names in reports start none.
    assert f"script-src &#39;{sort_script().digest}&#39;;" in text.replace("&#43;", "+")
    assert text.count("<script") == 1


def test_names_of_files_and_models_are_escaped(tmp_path: Path) -> None:
    write_json(documents.hostile(), tmp_path / 'javascript:alert(1) "x" <img>.json')
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert 'href="javascript%3Aalert%281%29%20%22x%22%20%3Cimg%3E.json"' in text
    assert "<img" not in text
    assert text.count("</script>") == 1


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


# -- sorted by its columns ---------------------------------------------------------------------------------------------


def three(folder: Path) -> Path:
    """The index of three reports: two with a date, one of an older version without."""
    for name, report, finished in (
        ("b", documents.trapped(), "2026-03-01T10:00:00+00:00"),
        ("a", documents.clean(), "2026-11-20T09:00:00+00:00"),
        ("c", documents.over_trained(), None),
    ):
        run = None if finished is None else Run(finished=finished, measuring_seconds=1.0)
        target = report.target.model_copy(update={"name": name})
        write_json(report.model_copy(update={"run": run, "target": target}), folder / f"{name}.json")
    return write_index(folder)


def names(page: Any) -> str:
    return "".join(page.locator(".registry tbody th a").all_inner_texts())


@pytest.mark.browser
def test_a_click_or_a_key_sorts_by_a_column_and_says_so(open_file: Any, tmp_path: Path) -> None:
    page = open_file(three(tmp_path))
    assert names(page) == "abc"
    measured = page.get_by_role("columnheader", name="Measured")
    measured.get_by_role("button").click()
    assert (names(page), measured.get_attribute("aria-sort")) == ("abc", "descending")
    measured.get_by_role("button").press("Enter")
    assert (names(page), measured.get_attribute("aria-sort")) == ("bac", "ascending")
    assert page.locator(".registry time").all_inner_texts() == ["2026-03-01", "2026-11-20"]
    page.get_by_role("button", name="With traps").click()
    assert names(page)[0] == "b"
    assert page.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="Model").click()
    page.get_by_role("button", name="Model").click()
    assert names(page) == "cba"
    assert page.get_by_role("button", name="Report").count() == 0


@pytest.mark.browser
def test_without_scripts_the_table_is_whole(open_file: Any, tmp_path: Path) -> None:
    page = open_file(three(tmp_path), java_script_enabled=False)
    assert (names(page), page.locator(".registry button").count()) == ("abc", 0)
    assert page.locator(".registry thead th").all_inner_texts()[:3] == ["Model", "Measured", "Verdict"]
