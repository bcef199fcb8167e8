"""`llmtrap gate --update-baseline`: the target's whole report, or nothing, and what it replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.audits import audit
from tests.support.gated import Run, checkpoint, planted

from llmtrap.report.read import read_report


def test_the_whole_target_becomes_the_baseline_and_says_what_it_replaced(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "tuned", two=planted())
    result = run("tuned", "--baseline", "base", "--update-baseline", "ci/baseline.json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "written: the new baseline ci/baseline.json"
    written, audited = read_report(tmp_path / "ci" / "baseline.json"), audit(tmp_path / "tuned")
    assert [matrix.id for matrix in written.matrices] == [matrix.id for matrix in audited.matrices]
    assert [it.traps for it in written.matrices] == [it.traps for it in audited.matrices]
    assert written.settings == audited.settings
    assert run("tuned", "--baseline", "ci/baseline.json").exit_code == 3
    off = "".join(f'[gate.rules.{rule}]\nlevel = "off"\n' for rule in ("LT010", "LT012", "LT013", "LT015", "LT016"))
    (tmp_path / "reports.toml").write_text(off)
    assert run("tuned", "--baseline", "ci/baseline.json", "--policy", "reports.toml").exit_code == 0
    again = run("base", "--baseline", "base", "--update-baseline", "ci/baseline.json")
    assert again.exit_code == 0, again.output
    last = again.stderr.splitlines()[-1]
    assert last.startswith("written: the new baseline ci/baseline.json; it replaced the report of ")
    assert last.endswith("(3 matrices)")
    assert read_report(tmp_path / "ci" / "baseline.json").target.name != written.target.name


def test_the_first_baseline_needs_no_other(run: Run, tmp_path: Path) -> None:
    result = run("base", "--update-baseline", "first.json")
    assert result.exit_code == 0, result.output
    assert len(read_report(tmp_path / "first.json").matrices) == 3


@pytest.mark.parametrize("level", ["error", "off"])
def test_broken_values_are_no_baseline(run: Run, tmp_path: Path, level: str) -> None:
    broken = planted()
    broken[1, 1] = np.nan
    checkpoint(tmp_path / "tuned", two=broken)
    (tmp_path / "llmtrap.toml").write_text(
        "".join(f'[gate.rules.{rule}]\nlevel = "{level}"\n' for rule in ("LT005", "LT006"))
    )
    result = run("tuned", "--baseline", "base", "--update-baseline", "old.json")
    assert result.exit_code == 2
    assert "no baseline was written: the target has broken values" in result.stderr
    assert not (tmp_path / "old.json").exists()


def test_what_was_not_wholly_judged_is_no_baseline(run: Run, tmp_path: Path) -> None:
    assert run("base", "--update-baseline", "base.json").exit_code == 0
    before = (tmp_path / "base.json").read_bytes()
    result = run("base.json", "--baseline", "base.json", "--update-baseline", "base.json")
    assert result.exit_code == 2
    assert "no baseline was written: the target was not wholly judged" in result.stderr
    assert (tmp_path / "base.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "words"), [("report.txt", "ends in .json"), ("config.json", "is not replaced"), ("file/x.json", "folder")]
)
def test_what_cannot_be_replaced_is_said_before_anything_is_measured(
    run: Run, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "file").write_text("")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run("base", "--update-baseline", name)
    assert (result.exit_code, words in result.output) == (2, True), result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_several_reports_are_no_baseline(run: Run, tmp_path: Path) -> None:
    assert run("base", "--update-baseline", "base.json").exit_code == 0
    several = run("base.json", "base.json", "--reports", "--update-baseline", "x.json")
    assert (several.exit_code, "--update-baseline is of one target" in several.output) == (2, True)
