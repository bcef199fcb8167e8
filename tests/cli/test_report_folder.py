"""Where reports go when no place is named, and the report on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_checkpoint import write_small

from llmtrap.cli.report_folder import default_report_folder

FAST = ("--workers", "1", "--traps", "certify", "--no-alpha")


def test_two_runs_checkpoints_of_one_name_have_a_folder_each(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("run_a", "run_b"):
        write_small(Path(run) / "checkpoint-500", layers=1)
        assert invoke("audit", f"{run}/checkpoint-500", *FAST).exit_code == 0
    for run in ("run_a", "run_b"):
        report = json.loads(Path(f"llmtrap-reports/{run}-checkpoint-500/report.json").read_text())
        assert report["target"]["name"] == f"{run}/checkpoint-500"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        (".", "here"),
        ("model", "model"),
        ("./model/", "model"),
        ("x/run_a/checkpoint-500", "x-run_a-checkpoint-500"),
        ("run_a/../run_b/checkpoint-500", "run_b-checkpoint-500"),
        ("../run_a/checkpoint-500", "run_a-checkpoint-500"),
        ("../run_a/checkpoint-500/model.safetensors", "run_a-checkpoint-500-model.safetensors"),
        ("a b/c\nd", "a-b-c-d"),
        ("s3://bucket/run_a/checkpoint-500", "run_a-checkpoint-500"),
        ("é" * 300, "é" * 100),
    ],
)
def test_a_folder_is_named_by_as_much_of_the_path_as_tells_targets_apart(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "run_a" / "checkpoint-500").mkdir(parents=True)
    (tmp_path / "run_a" / "checkpoint-500" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert default_report_folder(name, "folder") == Path("llmtrap-reports") / folder


def test_a_repository_s_folder_has_its_owner() -> None:
    assert default_report_folder("org/name", "hub") == Path("llmtrap-reports/org--name")


def test_a_dash_is_standard_output(invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = write_small(tmp_path / "small", layers=1)
    done = invoke("audit", small, *FAST, "--json", "-")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["target"]["name"] == str(small)
    assert [path.name for path in tmp_path.iterdir() if path.name == "-" or path.name == "llmtrap-reports"] == []
