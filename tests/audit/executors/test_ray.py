"""The same plan on a Ray cluster: the same report, also where a worker is killed on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.support.audits import timeless
from tests.support.processes import run
from tests.support.small_checkpoint import KillingSource, ids, write_small

from llmtrap.audit import AuditRun, AuditSettings, Failed, Finished, Measured, RunOptions, make_plan
from llmtrap.audit import run as run_module
from llmtrap.audit.executors.ray import LARGEST_GROUP, RayExecutor, groups
from llmtrap.checkpoint import Checkpoint, open_checkpoint

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
SETTINGS = AuditSettings(traps="measure")


def here(folder: Path, settings: AuditSettings) -> dict[str, Any]:
    """The report of a run in this process."""
    *_, last = AuditRun(open_checkpoint(str(folder)), settings, RunOptions(workers=1)).events()
    assert isinstance(last, Finished)
    assert last.report is not None
    return timeless(last.report.to_json_dict())


@pytest.mark.parametrize(("layers", "slots"), [(1, 1), (3, 2), (40, 2), (3, 1000)])
def test_groups_keep_the_order_and_lie_in_one_shard_each(tmp_path: Path, layers: int, slots: int) -> None:
    plan = make_plan(open_checkpoint(str(write_small(tmp_path / "model", layers))), AuditSettings())
    tasks = [plan.tasks[k] for k in plan.order]
    cut = list(groups(tasks, slots))

    assert [task for group in cut for task in group] == tasks
    for group in cut:
        assert 0 < len(group) <= LARGEST_GROUP
        assert len({task.matrix.stored.parts[0].span.file for task in group}) == 1


def killing(folder: Path, marks: Path, times: int) -> tuple[Checkpoint, str]:
    """A checkpoint of which one matrix takes the worker that reads it along, so many times; and its name."""
    marks.mkdir()
    real = open_checkpoint(str(folder))
    victim = next(matrix for matrix in real.matrices if matrix.id == "layers.0.mlp.gate")
    source = KillingSource(folder, victim.stored.parts[0].span, marks, times)
    return replace(real, source=source), victim.id


@needs_ray
def test_a_cluster_that_loses_a_worker_midway_gives_the_same_report(tmp_path: Path) -> None:
    folder, marks = write_small(tmp_path / "model", 4), tmp_path / "marks"
    checkpoint, _ = killing(folder, marks, times=1)
    *events, last = AuditRun(checkpoint, SETTINGS, RunOptions(workers=2, engine="ray")).events()

    assert len(list(marks.iterdir())) == 1
    assert not [event for event in events if isinstance(event, Failed)]
    assert isinstance(last, Finished)
    assert last.report is not None
    assert timeless(last.report.to_json_dict()) == here(folder, SETTINGS)


@needs_ray
@pytest.mark.thorough
def test_the_command_gives_the_same_report_with_it(tmp_path: Path) -> None:
    folder, report = write_small(tmp_path / "model", 2), tmp_path / "r.json"
    # Ray's own servers warn on Python 3.13, and would end of it
    done = run(
        "audit", folder, "--engine", "ray", "--workers", "2", "--journal", tmp_path / "j", "--json", report,
        "--no-digest", env={"PYTHONWARNINGS": "default"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert timeless(json.loads(report.read_text())) == here(folder, AuditSettings())


@needs_ray
@pytest.mark.thorough
def test_only_the_matrix_that_kills_its_worker_fails(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "choose_executor", lambda spec, _: RayExecutor(spec, 1))
    marks = tmp_path / "marks"
    checkpoint, victim = killing(small, marks, times=99)
    settings = AuditSettings(traps="certify", backend="numpy", device="cpu")
    events = list(AuditRun(checkpoint, settings, RunOptions(workers=1)).events())

    assert {e.task.matrix.id for e in events if isinstance(e, Measured)} == ids() - {victim}
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert failed.task.matrix.id == victim
    assert "the worker was lost twice" in failed.error
    assert len(list(marks.iterdir())) == 2


@needs_ray
def test_a_cluster_that_is_not_there_is_named(small: Path, tmp_path: Path) -> None:
    done = run(
        "audit", small, "--engine", "ray", "--journal", tmp_path, env={"RAY_ADDRESS": "no-such-host.invalid:6379"}
    )

    assert done.returncode == 2
    assert "the Ray cluster no-such-host.invalid:6379 cannot be reached" in done.stderr
    assert "Check RAY_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr
