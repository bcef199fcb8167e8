"""The same plan on a Ray cluster: the same report, also where a worker is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import has_open, run, started, wait_for
from tests.support.small_checkpoint import KillingSource, ids, write_small

from llmtrap.audit import AuditRun, AuditSettings, Failed, Finished, Measured, RunOptions, make_plan
from llmtrap.audit import run as run_module
from llmtrap.audit.executors.ray import LARGEST_GROUP, RayExecutor, groups
from llmtrap.checkpoint import Checkpoint, open_checkpoint

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
SLOW = AuditSettings(traps="measure", shuffles=150)


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    for matrix in document["matrices"]:
        del matrix["seconds"]
    del document["summary"]["seconds"], document["summary"]["peak_rss_bytes"]
    return document


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


def is_a_worker(number: int) -> bool:
    """Whether Ray has given the process a task, as its title says."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().startswith(b"ray::measure_group")
    except OSError:
        return False


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
def test_a_cluster_that_loses_a_worker_midway_gives_the_same_report(tmp_path: Path) -> None:
    folder, journals, report = write_small(tmp_path / "model", 4, scale=2), tmp_path / "j", tmp_path / "r.json"
    command = (
        "audit", folder, "--traps", "measure", "--shuffles", f"{SLOW.shuffles}", "--engine", "ray", "--workers", "2",
        "--journal", journals, "--json", report,
    )  # fmt: skip
    with started(*command) as process:

        def at_work() -> list[int]:
            numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
            # Ray's own servers have the file open too, for the moment between fork and exec.
            return [n for n in numbers if is_a_worker(n) and has_open(n, folder)]

        # A worker holds its shard open only while it reads: who was at work when looked at may not be a moment later.
        seen: list[int] = []

        def one_is_seen() -> bool:
            seen.extend(at_work())
            return bool(seen) and any(journals.glob("*"))

        wait_for(one_is_seen, "a worker at work")
        os.kill(seen[-1], signal.SIGKILL)
        assert process.wait() == 0
    assert timeless(json.loads(report.read_text())) == here(folder, SLOW)


@needs_ray
def test_of_a_batch_whose_worker_is_lost_only_what_kills_alone_fails(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "choose_executor", lambda spec, _: RayExecutor(spec, 1, most=3))
    marks = tmp_path / "marks"
    marks.mkdir()
    real = open_checkpoint(str(small))
    victim = next(matrix for matrix in real.matrices if matrix.id == "layers.0.mlp.gate")
    source = KillingSource(small, victim.stored.parts[0].span, marks, 99)
    checkpoint = Checkpoint(source, real.catalogue, real.matrices, real.skipped, real.family)
    settings = AuditSettings(traps="certify", backend="numpy", device="cpu")
    events = list(AuditRun(checkpoint, settings, RunOptions(workers=1)).events())

    assert {e.task.matrix.id for e in events if isinstance(e, Measured)} == ids() - {victim.id}
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert failed.task.matrix.id == victim.id
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
