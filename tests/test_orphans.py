"""A command that is killed leaves no worker behind, however long the work at hand would take."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.processes import has_open, of_session, started, wait_for
from tests.support.small_checkpoint import write_small


def test_a_killed_audit_ends_within_a_matrix_of_minutes(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "model", layers=1, scale=16)
    command = (
        "audit",
        folder,
        "--traps",
        "measure",
        "--shuffles",
        "5000",
        "--workers",
        "2",
        "--journal",
        tmp_path / "j",
    )
    with started(*command, "--json", tmp_path / "r.json", "--journal", tmp_path / "j") as process:
        wait_for(lambda: sum(has_open(one, folder) for one in of_session(process.pid)) >= 2, "two workers at work")
    wait_for(lambda: not of_session(process.pid), "the workers to end")


@pytest.mark.thorough
def test_a_killed_calibration_ends_its_trainings(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    steps = tmp_path / "out" / "runs"
    with started("calibrate", "--task", "digits", "--out", tmp_path / "out", "--workers", "2") as process:
        wait_for(lambda: len(list(steps.glob("*/steps/*.safetensors"))) > 4, "two trainings under way")
    wait_for(lambda: not of_session(process.pid), "the trainings to end")
    reached = sorted(steps.glob("*/steps/*"))
    assert not any(path.name.endswith("200000.safetensors") for path in reached)
