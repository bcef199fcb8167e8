"""A worker that comes to a stand is noticed, and given up where the user says so; one that computes is not."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.processes import wait_for
from tests.support.small_checkpoint import KillingSource, ids, write_small

from llmtrap.audit import AuditRun, AuditSettings, Event, Failed, Measured, RunOptions, Stalled
from llmtrap.audit.executors import local
from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import UsageError
from llmtrap.processes.stalls import StallMonitor
from llmtrap.processes.worker import WorkerProcess, stop_all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
VICTIM = "layers.0.mlp.gate"


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def compute(seconds: float) -> int:
    begun, count = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        count += 1
    return count


def test_a_stopped_process_stands_and_a_computing_one_does_not() -> None:
    stopped, computing = WorkerProcess(), WorkerProcess()
    try:
        stopped.call(stop_itself)
        computing.call(compute, 30.0)
        first, second = StallMonitor(stopped.pid), StallMonitor(computing.pid)
        wait_for(lambda: first.seconds() > 3 > second.seconds(), "one of them to stand")
        assert first.reason() == f"it was stopped: 'kill -CONT {stopped.pid}' lets it go on"
    finally:
        stop_all([stopped, computing])
    assert first.seconds() == 0.0  # it has ended


def audit_of_a_stopping_worker(tmp_path: Path, times: int, stall_timeout: float | None) -> Iterator[Event]:
    """The events of an audit in which one matrix stops the worker that reads it, so many times."""
    folder, marks = write_small(tmp_path / "model", layers=1), tmp_path / "marks"
    marks.mkdir()
    real = open_checkpoint(str(folder))
    (victim,) = (matrix for matrix in real.matrices if matrix.id == VICTIM)
    source = KillingSource(folder, victim.stored.parts[0].span, marks, times, signal.SIGSTOP)
    options = RunOptions(workers=1, isolated=True, stall_timeout=stall_timeout)
    return AuditRun(replace(real, source=source), AuditSettings(traps="certify"), options).events()


def test_a_worker_at_a_stand_is_told_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "NOTICED_SECONDS", 1.5)
    events = list(audit_of_a_stopping_worker(tmp_path, times=99, stall_timeout=2.5))

    stalled = [event for event in events if isinstance(event, Stalled)]
    assert [event.task.matrix.id for event in stalled] == [VICTIM, VICTIM]
    assert all(event.seconds >= 1.5 and f"kill -CONT {event.worker}" in event.reason for event in stalled)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.task.matrix.id == VICTIM
    assert re.fullmatch(r"the worker came to a stand for \d+ s twice \(it was stopped: .*\)", failed.error)
    assert {event.task.matrix.id for event in events if isinstance(event, Measured)} == ids(layers=1) - {VICTIM}


def test_without_a_limit_it_is_waited_for_until_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "NOTICED_SECONDS", 1.5)
    events = []
    for event in audit_of_a_stopping_worker(tmp_path, times=1, stall_timeout=None):
        events.append(event)
        if isinstance(event, Stalled):
            os.kill(int(event.worker), signal.SIGCONT)

    assert len([event for event in events if isinstance(event, Stalled)]) == 1
    assert {event.task.matrix.id for event in events if isinstance(event, Measured)} == ids(layers=1)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_limit_is_more_than_nothing(seconds: float) -> None:
    with pytest.raises(UsageError, match="--stall-timeout must be more than 0"):
        RunOptions(stall_timeout=seconds)
