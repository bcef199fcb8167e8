"""A user's own runs: what tells their collapsed checkpoints from the good ones, against known test scores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.runs import write_run
from typer.testing import CliRunner, Result

from llmtrap.audit import AuditSettings, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.cli import app
from llmtrap.trajectory.follow import Follower, FollowOptions
from llmtrap.trajectory.write import write_trajectory


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five checkpoints; an entry of one matrix grows into a trap."""
    here = tmp_path_factory.mktemp("own")
    follower = Follower("run", AuditSettings(), FollowOptions(RunOptions(workers=1)))
    for path in write_run(here, 5, layers=6, by=0.42):
        for _ in follower.events(open_checkpoint(str(path)), path.name):
            pass
    follower.close()
    file = here / "trajectory.json"
    write_trajectory(follower.trajectory, file)
    return file


def calibrate(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, words)], env={"COLUMNS": "200"})


def table(folder: Path, *scores: float) -> Path:
    file = folder / f"scores{len(list(folder.iterdir()))}.csv"
    rows = [f"{100 * k},{score}" for k, score in enumerate(scores, start=1)]
    file.write_text("step,test\n" + "\n".join(rows) + "\n")
    return file


def test_traps_that_come_with_the_loss_tell_it(trajectory: Path, tmp_path: Path) -> None:
    done = calibrate("--from-trajectory", trajectory, "--scores", table(tmp_path, 0.90, 0.92, 0.86, 0.70, 0.60))
    assert done.exit_code == 0, done.output
    assert "1 run: 2 good checkpoints" in done.output
    assert "2 collapsed ones" in done.output
    assert re.search(r"^centred traps +high +1\.00 *$", done.output, re.MULTILINE), done.output
    assert "Fewer than three runs: no interval" in done.output
    assert "Here traps tell collapsed checkpoints (AUC 1.00). As well or better, alone:" in done.output


def test_traps_of_the_good_checkpoints_say_the_opposite(trajectory: Path, tmp_path: Path) -> None:
    falling = table(tmp_path, 0.90, 0.40, 0.88, 0.89, 0.90)
    words = ["--from-trajectory", trajectory, "--scores", falling]
    done = calibrate(*words, *words, *words)
    assert done.exit_code == 0, done.output
    assert "3 runs: 12 good checkpoints" in done.output
    assert "Here traps mark the good checkpoints: they say the opposite" in done.output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("step,accuracy\n100,0.5\n", "has no columns step and test"),
        ("step,test\n100,good\n", "line 2 is no step with a score: 100, good"),
        ("step,test\n100,nan\n", "line 2: the score is no finite number"),
        ("step,test\n100,0.5\n100,0.6\n", "line 3: step 100 is there twice"),
        ("step,test\n100," + "9" * 200_000, "is no table (field larger than field limit"),
        ("step,test\n100,0.9\n200,0.9\n", "there is nothing to tell apart"),
        ("step,test\n7,0.9\n8,0.1\n", "there is nothing to tell apart"),
    ],
)
def test_scores_that_cannot_be_used_are_refused_by_name(
    trajectory: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "scores.csv").write_text(text)
    done = calibrate("--from-trajectory", trajectory, "--scores", tmp_path / "scores.csv")
    assert done.exit_code == 2
    assert problem in " ".join(done.output.split())


def test_a_table_for_each_run(trajectory: Path) -> None:
    done = calibrate("--from-trajectory", trajectory)
    assert done.exit_code == 2
    assert "1 trajectory and 0 tables of scores" in " ".join(done.output.split())
