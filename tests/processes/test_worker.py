"""Workers are ended within seconds, however many there are and whatever holds them."""

from __future__ import annotations

import subprocess
import time

import pytest

from llmtrap.processes import worker
from llmtrap.processes.worker import WorkerProcess, stop_all


@pytest.mark.skipif(not worker.HAS_WORKERS, reason="no worker processes here")
def test_workers_that_do_not_end_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits for a file system is killed later than it is told to be; here none is killed at all."""
    monkeypatch.setattr(worker, "_STOP_SECONDS", 0.3)
    waited = []
    real = subprocess.Popen.wait

    def wait(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        waited.append(timeout)
        return real(self, timeout)

    workers = [WorkerProcess() for _ in range(3)]
    with monkeypatch.context() as held:
        held.setattr(WorkerProcess, "kill", lambda _: None)
        held.setattr(subprocess.Popen, "wait", wait)
        stop_all(workers)
    first, *others = waited
    assert first is not None
    assert 0 <= first <= 0.3
    assert others == [0.0, 0.0]
    end = time.monotonic() + 60
    for one in workers:  # its input is closed, and it ends by that
        while one.alive and time.monotonic() < end:
            time.sleep(0.01)
        assert not one.alive
