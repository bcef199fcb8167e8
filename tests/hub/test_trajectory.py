"""A trajectory over the revisions of a hub repository, through the real client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.hub import LoopbackHub
from tests.support.runs import DRIFTING, GROWING, write_step
from typer.testing import CliRunner

from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.sources.hub.revisions import revisions_like
from llmtrap.cli import app
from llmtrap.errors import TargetError


@pytest.fixture
def pythia(hub: LoopbackHub, tmp_path: Path) -> str:
    """Steps 0, 2, 10 and 100 as tags, main beside them: of eight shards the two of the changed matrices differ."""
    for k, step in ((1, 0), (2, 2), (4, 10), (6, 100)):
        hub.add("org/pythia", write_step(tmp_path / "made", k, name=f"s{step}"), ref=f"step{step}")
    hub.add("org/pythia", tmp_path / "made" / "s100")
    return "org/pythia"


def trajectory(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["trajectory", *map(str, words), "--workers", "1", "--no-alpha"])


def test_revisions_in_the_order_of_their_steps_and_only_what_changed(
    hub: LoopbackHub, pythia: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.served.clear()
    done = trajectory(pythia, "--revisions", "step*", "--json", "t.json", "--journal", "j")
    assert done.exit_code == 0, done.output
    found = json.loads(Path("t.json").read_text())
    assert [point["label"] for point in found["points"]] == ["0", "2", "10", "100"]
    assert [point["measured"] for point in found["points"]] == [32, 2, 2, 2]
    assert {item["matrix"]["id"] for item in found["matrices"] if item["point"]} == {GROWING, DRIFTING}
    commits = {ref: commit for ref, commit in hub.repositories[pythia].refs.items() if ref != "main"}
    assert [point["target"]["revision"] for point in found["points"]] == [
        commits[name] for name in ("step0", "step2", "step10", "step100")
    ]
    # Six of eight shards are the same by their SHA-256, and are not fetched again.
    whole = sum(matrix.size * 4 for matrix in open_checkpoint(f"{pythia}@step0").matrices)
    assert hub.bytes_sent < 3.5 * whole


def test_so_many_points_evenly_spread(pythia: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = trajectory(pythia, "--revisions", "step*", "--points", "2", "--json", "t.json", "--journal", "j")
    assert done.exit_code == 0, done.output
    assert [point["name"] for point in json.loads(Path("t.json").read_text())["points"]] == ["step0", "step100"]


def test_branches_and_tags_by_a_pattern(pythia: str) -> None:
    assert revisions_like(pythia, "*") == ["main", "step0", "step10", "step100", "step2"]
    with pytest.raises(TargetError, match=r"no branch or tag of org/pythia matches 'stage\*'. There are 5: main"):
        revisions_like(pythia, "stage*")


def test_a_repository_that_is_not_there(hub: LoopbackHub) -> None:
    with pytest.raises(TargetError, match="org/none"):
        revisions_like("org/none", "step*")


def test_two_repositories_have_no_common_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = trajectory("org/a", "org/b", "--revisions", "step*")
    assert done.exit_code == 2
    assert "--revisions takes one repository" in done.output
