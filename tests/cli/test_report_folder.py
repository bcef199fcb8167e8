"""Where reports go when no place is named, and the report on standard output."""

from __future__ import annotations

import datetime
import hashlib
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
        report = json.loads(Path(f"llmtrap-reports/{run}-checkpoint-500_no-alpha_certify/report.json").read_text())
        assert report["target"]["name"] == "checkpoint-500"


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
        ("é" * 300, "é" * 80),
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
    assert json.loads(done.stdout)["target"]["name"] == "small"
    assert [path.name for path in tmp_path.iterdir() if path.name == "-" or path.name == "llmtrap-reports"] == []


def test_a_changed_setting_or_subset_has_a_folder_of_its_own(invoke: Any, small: Path) -> None:
    for options in ([], ["--seed", "1"], ["--include", "*.mlp.*"], ["--include", "*.attention.*"]):
        assert invoke("audit", small, *FAST, *options).exit_code == 0
    made = {path.name for path in Path("llmtrap-reports").iterdir()}
    assert len(made) == 4
    assert {f"{small.parent.name}-small_no-alpha_certify", f"{small.parent.name}-small_no-alpha_certify_seed-1"} < made
    assert sum("_subset-" in name for name in made) == 2


def test_the_same_weights_replace_their_report_and_others_never(invoke: Any, small: Path) -> None:
    for _ in range(2):
        assert invoke("audit", small, *FAST).exit_code == 0
    first = f"{small.parent.name}-small_no-alpha_certify"
    assert {path.name for path in Path("llmtrap-reports").iterdir()} == {first}
    before = Path("llmtrap-reports", first, "report.json").read_bytes()

    write_small(small, layers=1, seed=7)
    assert invoke("audit", small, *FAST).exit_code == 0
    assert {path.name for path in Path("llmtrap-reports").iterdir()} == {first, f"{first}-2"}
    assert Path("llmtrap-reports", first, "report.json").read_bytes() == before
    # Without digests nobody knows whether these are the same weights.
    for _ in range(2):
        assert invoke("audit", small, *FAST, "--no-digest").exit_code == 0
    assert {path.name for path in Path("llmtrap-reports").iterdir()} == {first, *(f"{first}-{n}" for n in (2, 3, 4))}


REPORT_OUTPUTS = {
    "json": "{",
    "html": "<!DOCTYPE html>",
    "markdown": "# ",
    "csv": "id,tensor,",
    "model-card": "---\n",
    "badge": "<svg",
}


@pytest.mark.parametrize("output", REPORT_OUTPUTS)
def test_every_face_goes_to_standard_output_and_nothing_else_does(invoke: Any, small: Path, output: str) -> None:
    done = invoke("audit", small, *FAST, f"--{output}", "-")
    assert done.exit_code == 0
    assert done.stdout.startswith(REPORT_OUTPUTS[output])
    assert list(Path().iterdir()) == []
    invoke("audit", small, *FAST, "--json", "r.json")
    if output != "json":
        assert invoke("report", "r.json", f"--{output}", "-").stdout.startswith(REPORT_OUTPUTS[output])


def test_two_faces_never_go_to_one_place(invoke: Any, small: Path) -> None:
    for one, other in (("-", "-"), ("r.html", "./r.html")):
        done = invoke("audit", small, *FAST, "--json", one, "--html", other)
        assert done.exit_code == 2
        assert "--json and --html both name" in done.stderr


def test_places_are_tried_before_anything_is_measured(invoke: Any, small: Path) -> None:
    Path("a-file").touch()
    Path("a-folder").mkdir()
    for place, words in (("a-file/r.json", "not a folder"), ("a-folder", "this is a folder")):
        done = invoke("audit", small, *FAST, "--json", place)
        assert done.exit_code == 2
        assert words in done.stderr
        assert "to measure" not in done.stderr
    Path("llmtrap-reports").touch()
    done = invoke("audit", small, *FAST)
    assert (done.exit_code, "to measure" in done.stderr) == (2, False)


def test_a_report_names_no_folder_of_this_machine_unless_asked(invoke: Any, small: Path) -> None:
    done = invoke("audit", small, *FAST, "--json", "-")
    assert str(small.parent) not in done.stdout + done.stderr
    shown = invoke("inspect", small)
    assert str(small.parent) not in shown.stdout + shown.stderr
    whole = invoke("audit", small, *FAST, "--json", "-", "--full-paths", "--fresh")
    assert json.loads(whole.stdout)["target"]["name"] == str(small)


def test_a_report_has_its_date_its_name_and_what_the_measuring_took(invoke: Any, small: Path) -> None:
    before = datetime.datetime.now(tz=datetime.UTC).replace(microsecond=0)
    first = json.loads(invoke("audit", small, *FAST, "--json", "-", "--name", "run 7").stdout)
    again = json.loads(invoke("audit", small, *FAST, "--json", "-").stdout)

    assert first["run"]["name"] == "run 7"
    assert before <= datetime.datetime.fromisoformat(first["run"]["finished"])
    # What the journal kept has taken as long as it took.
    assert again["summary"]["remembered"]["matrices"] == 4
    assert again["run"]["measuring_seconds"] == first["run"]["measuring_seconds"] > 0


def test_local_files_have_their_digests(invoke: Any, small: Path) -> None:
    (file,) = json.loads(invoke("audit", small, *FAST, "--json", "-").stdout)["target"]["files"]
    assert file["digest"] == "sha256:" + hashlib.sha256((small / file["path"]).read_bytes()).hexdigest()
    (file,) = json.loads(invoke("audit", small, *FAST, "--json", "-", "--no-digest").stdout)["target"]["files"]
    assert file["digest"] is None


def test_merged_parts_have_digests_name_and_time(invoke: Any, small: Path) -> None:
    for part in ("1/2", "2/2"):
        assert invoke("audit", small, *FAST, "--part", part, "--journal", "j").exit_code == 0
    merged = json.loads(invoke("merge", "j", "--json", "-", "--name", "both").stdout)
    assert merged["target"]["files"][0]["digest"].startswith("sha256:")
    assert merged["run"]["name"] == "both"
    assert merged["run"]["measuring_seconds"] == pytest.approx(sum(m["seconds"] for m in merged["matrices"]), abs=0.01)
