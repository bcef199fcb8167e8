"""Audits that are stopped, killed or out of disk: carried on with the same command, they lose nothing."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.audits import timeless
from tests.support.disks import enlarge, tiny_disk
from tests.support.processes import LLMTRAP, Terminal, has_open, of_session, run, started, wait_for
from tests.support.small_checkpoint import write_small

from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions, journal_for
from llmtrap.checkpoint import open_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
CERTIFY = AuditSettings(traps="certify")
KILLS = 20


def audit_once(folder: Path, journals: Path) -> dict[str, Any]:
    """What one command does: open, plan, measure what is not in the journal. The report without its times."""
    checkpoint = open_checkpoint(str(folder))
    for event in AuditRun(checkpoint, CERTIFY, RunOptions(workers=1), journal_for(checkpoint, journals)).events():
        if isinstance(event, Finished) and event.report is not None:
            return timeless(event.report.to_json_dict())
    raise AssertionError("no report")


def recorded(journals: Path) -> Counter[str]:
    """How often each matrix was recorded, over the whole lines of the journal."""
    counts: Counter[str] = Counter()
    for path in journals.glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            checksum, _, body = line.partition(b" ")
            if checksum == f"{zlib.crc32(body):08x}".encode():
                record = json.loads(body)
                if record["kind"] == "matrix":
                    counts[record["key"]] += 1
    return counts


# From Python 3.12 on a fork beside another thread is warned of; the child here takes no lock that a thread could hold
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_at_twenty_moments_nothing_is_lost_and_nothing_measured_twice(tmp_path: Path) -> None:
    folder, journals = write_small(tmp_path / "model", layers=10), tmp_path / "journals"
    expected = audit_once(folder, tmp_path / "undisturbed")
    moments = random.Random(20)
    context = multiprocessing.get_context("fork")
    kills, stages = 0, set()
    while kills < KILLS:
        before = recorded(journals)
        child = context.Process(target=audit_once, args=(folder, journals))
        child.start()
        # By results and not by the clock: a slow machine has as many of each stage as a fast one
        enough = before.total() + moments.randrange(4)
        while child.is_alive() and recorded(journals).total() < enough:
            time.sleep(0.002)
        child.join(moments.uniform(0, 0.02))
        child.kill()
        child.join()
        after = recorded(journals)
        assert before <= after
        if child.exitcode == -signal.SIGKILL:
            kills += 1
            stages.add(len(after))
        else:
            # It was quicker than its killer: begin again
            assert child.exitcode == 0
            shutil.rmtree(journals)

    assert len(stages) > 3
    assert audit_once(folder, journals) == expected
    assert set(recorded(journals).values()) == {1}
    assert len(recorded(journals)) == 40


def test_the_command_killed_with_its_workers_at_work_carries_on(tmp_path: Path) -> None:
    folder, journals, report = write_small(tmp_path / "model", layers=8, scale=4), tmp_path / "j", tmp_path / "r.json"
    command = (
        "audit",
        folder,
        "--traps",
        "certify",
        "--workers",
        "2",
        "--json",
        report,
        "--no-digest",
        "--journal",
        journals,
    )
    for enough in (1, 12):
        with started(*command) as process:
            wait_for(lambda: recorded(journals).total() >= enough, "results")  # noqa: B023
        assert not report.exists()
        # Workers see that nobody listens any more, and end
        wait_for(lambda: not of_session(process.pid), "the workers to end")

    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "already in the journal" in done.stderr
    assert set(recorded(journals).values()) == {1}
    undisturbed = audit_once(folder, tmp_path / "undisturbed")
    assert timeless(json.loads(report.read_text())) == undisturbed


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_ctrl_c_stops_within_two_seconds_and_says_how_to_carry_on(tmp_path: Path, workers: int) -> None:
    # Matrices of which each would take minutes
    folder = write_small(tmp_path / "model", layers=1, scale=16)
    command = [
        LLMTRAP, "audit", folder, "--traps", "measure", "--shuffles", "5000", "--workers", f"{workers}",
        "--json", tmp_path / "r.json", "--journal", tmp_path / "j",
    ]  # fmt: skip
    terminal = Terminal(command)

    def at_work() -> bool:
        terminal.read()
        others = [process for process in of_session(terminal.process) if process != terminal.process]
        return sum(has_open(process, folder) for process in others) == workers

    wait_for(at_work, "the workers to begin")
    pressed = time.monotonic()
    terminal.press(b"\x03")
    code = terminal.wait()
    waited = time.monotonic() - pressed

    assert code == 130, terminal.output
    assert "Traceback" not in terminal.output
    assert f"The same command carries on: llmtrap audit {folder}" in terminal.output.replace("\r\n", "\n")
    assert "--shuffles 5000" in terminal.output
    assert of_session(terminal.process) == {}
    assert waited < 2 * slowdown()


def slowdown() -> float:
    """How many times as long as on an idle machine work takes here now."""
    begun, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.2:
        pass
    return (time.monotonic() - begun) / 0.2


def test_ctrl_c_while_the_workers_are_starting(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "model", layers=1, scale=16)
    terminal = Terminal([LLMTRAP, "audit", folder, "--workers", "2", "--journal", tmp_path / "j"])
    wait_for(lambda: terminal.shows("to measure") or len(of_session(terminal.process)) > 2, "the workers to start")
    terminal.press(b"\x03")

    assert terminal.wait() == 130, terminal.output
    assert "Traceback" not in terminal.output
    assert "The same command carries on" in terminal.output
    assert of_session(terminal.process) == {}


# -- the disk is full -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    with tiny_disk(tmp_path / "disk") as place:
        yield place


def test_a_full_disk_is_a_clear_error_and_the_journal_carries_on_afterwards(tmp_path: Path, small_disk: Path) -> None:
    folder = write_small(tmp_path / "model", layers=10)
    command = (
        "audit", folder, "--traps", "certify", "--workers", "1", "--json", tmp_path / "r.json", "--no-digest",
        "--journal", small_disk,
    )  # fmt: skip
    stopped = run(*command)

    (journal,) = small_disk.glob("*.jsonl")
    assert stopped.returncode == 2
    message = stopped.stderr.splitlines()[-1]
    assert message == (
        f"llmtrap: {journal}: the disk is full. Free some space and run the same command again: it carries on from here"
    )
    assert "Traceback" not in stopped.stderr
    kept = recorded(small_disk)
    assert 0 < len(kept) < 40
    assert journal.read_bytes().endswith(b"\n")

    enlarge(small_disk)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} already in the journal" in done.stderr
    assert set(recorded(small_disk).values()) == {1}
    assert timeless(json.loads((tmp_path / "r.json").read_text())) == audit_once(folder, tmp_path / "undisturbed")
