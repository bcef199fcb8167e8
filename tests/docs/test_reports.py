"""`make reports` makes every page of reports/ from the JSON that is kept there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from llmtrap.report.read import schema_of

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
NAMES = ("calibrate-modular-addition-quick", "demo", "minilm-l6", "minilm-l6-sre")


def test_pages_are_made_of_every_kind_of_report(tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copyfile(REPORTS / f"{name}.json", tmp_path / f"{name}.json")
    subprocess.run([sys.executable, ROOT / ".ci" / "pages_of_reports.py", tmp_path], check=True, capture_output=True)
    assert {path.stem for path in tmp_path.glob("*.html")} == {*NAMES, "index"}
    assert "minilm-l6" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert ['<section id="against"' in read(tmp_path, name) for name in NAMES[1:]] == [False, False, True]


def read(folder: Path, name: str) -> str:
    return (folder / f"{name}.html").read_text(encoding="utf-8")


def test_the_repository_keeps_documents_and_the_readme_lists_them() -> None:
    listed = set(re.findall(r"^\| (`.+?`) \|", (REPORTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    names = {name for cell in listed for name in re.findall(r"`([\w.-]+)`", cell)}
    kept = {path.stem for path in REPORTS.glob("*.json")}
    assert names == kept
    assert all((schema_of(REPORTS / f"{name}.json") or "").startswith("llmtrap.") for name in kept)
