"""`llmtrap trajectory` and `llmtrap gate --trajectory`, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import GROWING, write_run
from tests.support.small_checkpoint import write_small
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.trajectory.page import to_html
from llmtrap.trajectory.page.payload import payload
from llmtrap.trajectory.read import read_trajectory

QUICK = ("--no-alpha", "--workers", "1", "--journal", "j")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def llmtrap(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_runs_folder(here: Path) -> None:
    write_run(here / "run", 4)
    done = llmtrap("trajectory", "run", *QUICK)
    assert done.exit_code == 0, done.output
    head, *lines = [line for line in done.stdout.splitlines() if "new trap" not in line]
    assert head.split() == ["step", "measured", "same", "traps", "new", "median", "α", "verdict"]
    assert [line.split()[:5] for line in lines] == [
        ["100", "32", "0", "0", "–"], ["200", "2", "30", "0", "0"], ["300", "2", "30", "1", "1"],
        ["400", "2", "30", "1", "0"],
    ]  # fmt: skip
    assert f"new trap in {GROWING}: entry [7, 11]" in done.stdout
    assert f"{GROWING} entry [7, 11]: first at 300, × " in done.stderr
    assert sorted(path.name for path in (here / "llmtrap-reports" / "run").iterdir()) == [
        "trajectory.html", "trajectory.json",
    ]  # fmt: skip


def test_json_on_standard_output_is_the_document_alone(here: Path) -> None:
    write_run(here / "run", 2, layers=6)
    done = llmtrap("trajectory", "run", *QUICK, "--json", "-")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schema"] == "llmtrap.trajectory/1"
    assert not (here / "llmtrap-reports").exists()


def test_checkpoints_that_are_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMTRAP_HUB_PATIENCE", "0.5")  # the name may be a repository's, and there is no network here
    done = llmtrap("trajectory", "nowhere/checkpoint-1", *QUICK)
    assert done.exit_code == 2


def test_weights_beside_the_checkpoints_are_not_passed_over(here: Path) -> None:
    write_run(here / "run", 1, layers=6)
    write_small(here / "run", layers=1)
    done = llmtrap("trajectory", "run", *QUICK)
    assert done.exit_code == 2
    assert "it holds weights of its own beside 1 checkpoints, such as checkpoint-100" in done.stderr


def test_a_gate_against_the_runs_past(here: Path) -> None:
    write_run(here / "run", 4)
    assert llmtrap("trajectory", "run", *QUICK, "--json", "t.json").exit_code == 0
    gate = ("--journal", "j", "--workers", "1", "--quiet", "--output")

    def judged(step: int, trajectory: str) -> set[str]:
        done = llmtrap("gate", f"run/checkpoint-{step}", "--trajectory", trajectory, *gate, "json=g.json")
        assert done.exit_code != 2, done.output
        return {found["rule"] for found in json.loads((here / "g.json").read_text())["findings"]}

    assert "LT001" in judged(300, "t.json")  # against step 200
    assert "LT001" not in judged(400, "t.json")  # against step 300, which has the trap
    assert "LT002" in judged(400, "t.json")  # and it grew
    assert "LT001" in judged(400, "t.json@100")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--trajectory", "t.json@150"), "the trajectory has no step 150. Its points are 100, 200"),
        (("--trajectory", "t.json@x"), "'x' is no step"),
        (("--trajectory", "none.json"), "there is no such trajectory"),
        (("--trajectory", "t.json", "--baseline", "run/checkpoint-100"), "--baseline and --trajectory are two bases"),
    ],
)
def test_a_past_that_is_not_there(here: Path, words: tuple[str, ...], problem: str) -> None:
    write_run(here / "run", 2, layers=6)
    assert llmtrap("trajectory", "run", *QUICK, "--json", "t.json").exit_code == 0
    done = llmtrap("gate", "run/checkpoint-200", *words)
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.split())


def test_the_first_point_has_no_past(here: Path) -> None:
    write_run(here / "run", 2, layers=6)
    assert llmtrap("trajectory", "run", *QUICK, "--json", "t.json").exit_code == 0
    done = llmtrap("gate", "run/checkpoint-100", "--trajectory", "t.json")
    assert "no point of the trajectory comes before the target" in done.stderr


def test_the_page_has_the_numbers_without_scripts_and_nothing_from_the_network(here: Path) -> None:
    write_run(here / "run", 3)
    assert llmtrap("trajectory", "run", *QUICK, "--json", "t.json").exit_code == 0
    trajectory = read_trajectory(here / "t.json")
    data = payload(trajectory)
    assert data["x"] == [100, 200, 300]
    place = data["matrices"]["names"].index(GROWING)
    assert data["matrices"]["traps"][place] == [0, 0, 1]
    kind = data["kinds"]["names"].index("mlp.down")
    assert data["kinds"]["traps"][kind] == [0, 0, 1]
    page = to_html(trajectory)
    assert "default-src &#39;none&#39;" in page
    table = page.partition('id="traps"')[2].partition("</table>")[0]
    assert GROWING in table
    assert "entry [7, 11]" in table
    assert ">300<" in table
    assert "http://" not in page.partition("<script>")[0]


def test_names_of_a_stranger_do_nothing_in_the_page(here: Path) -> None:
    write_run(here / "run", 1, layers=6)
    assert llmtrap("trajectory", "run", *QUICK, "--json", "t.json").exit_code == 0
    trajectory = read_trajectory(here / "t.json")
    name = "<script>alert(1)</script>"
    page = to_html(trajectory.model_copy(update={"name": name}))
    assert name not in page
