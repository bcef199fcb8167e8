"""Workers that die: their matrix is tried once more and then fails with its reason, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_checkpoint import DyingAtStartSource, KillingSource, WaitingSource, ids, write_small

from llmtrap.audit import AuditRun, AuditSettings, Failed, Finished, Measured, RunOptions, journal_for
from llmtrap.audit.executors import local
from llmtrap.checkpoint import Checkpoint, LocalSource, open_checkpoint
from llmtrap.errors import DeviceError
from llmtrap.report.document import Report

CERTIFY = AuditSettings(traps="certify")
VICTIM = "layers.0.mlp.gate"


def with_source(folder: Path, source: Callable[[Checkpoint], LocalSource]) -> Checkpoint:
    """The checkpoint of a folder, read through another source."""
    real = open_checkpoint(str(folder))
    return Checkpoint(source(real), real.catalogue, real.matrices, real.skipped, real.family)


def killing(folder: Path, marks: Path, times: int) -> Checkpoint:
    """A checkpoint whose victim takes whoever reads it along, `times` times."""
    marks.mkdir()

    def source(real: Checkpoint) -> LocalSource:
        (victim,) = (m for m in real.matrices if m.id == VICTIM)
        return KillingSource(folder, victim.stored.parts[0].span, marks, times)

    return with_source(folder, source)


def report_of(run: AuditRun) -> tuple[Report, set[str], dict[str, str]]:
    """The report, the matrices measured and those that failed, with their errors."""
    events = list(run.events())
    assert isinstance(events[-1], Finished)
    assert events[-1].report is not None
    done = {e.task.matrix.id for e in events if isinstance(e, Measured)}
    return events[-1].report, done, {e.task.matrix.id: e.error for e in events if isinstance(e, Failed)}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_a_matrix_that_kills_its_worker_twice_fails_alone(small: Path, tmp_path: Path, workers: int) -> None:
    checkpoint = killing(small, tmp_path / "marks", times=99)
    journal = journal_for(checkpoint, tmp_path / "j")
    report, done, failed = report_of(AuditRun(checkpoint, CERTIFY, RunOptions(workers=workers, isolated=True), journal))

    assert done == ids() - {VICTIM}
    assert failed == {VICTIM: "the worker was killed by signal 9 twice (the system may be out of memory: "
                              "use fewer --workers)"}  # fmt: skip
    assert len(list((tmp_path / "marks").iterdir())) == 2
    assert [f.id for f in report.coverage.failed] == [VICTIM]
    # Failures are not remembered: the next run tries again
    assert len(journal.matrices({task.key for task in AuditRun(checkpoint, CERTIFY).plan.tasks})) == 7


def test_killed_once_the_second_try_succeeds(
    small: Path, tmp_path: Path, timeless: Callable[[Report], dict[str, Any]]
) -> None:
    checkpoint = killing(small, tmp_path / "marks", times=1)
    report, done, failed = report_of(AuditRun(checkpoint, CERTIFY, RunOptions(workers=2)))

    assert (done, failed) == (ids(), {})
    assert len(list((tmp_path / "marks").iterdir())) == 1
    whole, _, _ = report_of(AuditRun(open_checkpoint(str(small)), CERTIFY, RunOptions(workers=1)))
    assert timeless(report) == timeless(whole)


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.thorough), 99])
def test_workers_that_die_before_their_first_task(small: Path, tmp_path: Path, times: int) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    checkpoint = with_source(small, lambda _: DyingAtStartSource(small, marks, times))
    settings = AuditSettings(traps="certify", include=(VICTIM,))
    _, done, failed = report_of(AuditRun(checkpoint, settings, RunOptions(workers=1, isolated=True)))

    if times == 1:
        assert (done, failed) == ({VICTIM}, {})
    else:
        assert failed.keys() == {VICTIM}
        assert "the worker died twice" in failed[VICTIM]


def test_what_waits_behind_a_long_task_is_done_by_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LONG_SECONDS", 0.5)
    folder = write_small(tmp_path / "model", layers=4)
    plan = AuditRun(open_checkpoint(str(folder)), CERTIFY).plan
    first, go = plan.tasks[plan.order[0]].matrix, tmp_path / "go"
    checkpoint = with_source(folder, lambda _: WaitingSource(folder, first.stored.parts[0].span, go))
    done = []
    for event in AuditRun(checkpoint, CERTIFY, RunOptions(workers=2)).events():
        if isinstance(event, Measured):
            done.append(event.task.matrix.id)
            if len(done) == len(plan.tasks) - 1:
                go.touch()

    assert done[-1] == first.id
    assert set(done) == ids(layers=4)


def test_a_device_that_is_not_there_ends_the_run_with_its_reason(small: Path) -> None:
    checkpoint = open_checkpoint(str(small))
    run = AuditRun(checkpoint, AuditSettings(device="cuda:7", backend="torch"), RunOptions(workers=2))

    with pytest.raises(DeviceError, match="CUDA device 7 was asked for"):
        list(run.events())
