"""SIGTERM, as schedulers send it, SIGHUP of a closed terminal: a command ends as after Ctrl-C, with nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.processes import LLMTRAP, PATIENCE, Terminal, environment, of_session, wait_for, workers_of
from tests.support.small_checkpoint import write_small

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


def begun(*arguments: str | Path) -> subprocess.Popen[str]:
    """A command that is still at work."""
    return subprocess.Popen(
        [LLMTRAP, *map(str, arguments)], env=environment(PYTHONWARNINGS="default"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Send a signal; what was shown by the time that all of it has ended."""
    process.send_signal(number)
    try:
        shown, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    wait_for(lambda: not of_session(process.pid), "its processes to end")
    assert process.returncode == 128 + number, shown
    assert not any(word in shown for word in ("Traceback", "leaked", "Warning")), shown
    return shown


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.thorough)])
def test_an_audit_keeps_what_was_measured_and_says_how_to_carry_on(tmp_path: Path, number: int) -> None:
    folder, journals = write_small(tmp_path / "model", layers=6, scale=6), tmp_path / "journals"
    process = begun("audit", folder, "--traps", "measure", "--workers", "2", "--journal", journals, "--fresh")
    wait_for(lambda: any(b'"kind":"matrix"' in path.read_bytes() for path in journals.glob("*")), "a result")
    carry_on = end(process, number).splitlines()[-1]
    assert "what was measured is kept. The same command carries on: llmtrap audit" in carry_on
    assert "--fresh" not in carry_on


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="the extra 'weightwatcher' is not installed")
def test_verify_takes_weightwatcher_with_it(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((1500, 1500), dtype=np.float32)
    save_file({"a.weight": matrix}, tmp_path / "model.safetensors")
    process = begun("verify", tmp_path)
    wait_for(lambda: any("child.py" in command for command in of_session(process.pid).values()), "WeightWatcher")
    assert "llmtrap: interrupted" in end(process)


def test_a_closed_terminal_ends_an_audit_and_its_workers(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "model", layers=6, scale=6)
    terminal = Terminal([LLMTRAP, "audit", folder, "--traps", "measure", "--workers", "2", "--journal", tmp_path / "j"])
    wait_for(lambda: terminal.shows("to measure") and len(workers_of(terminal.process)) == 2, "the workers to start")
    terminal.close()

    assert terminal.wait() == 129
    assert of_session(terminal.process) == {}


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    folder, report = write_small(tmp_path / "model", layers=2), tmp_path / "r.json"
    command = ["audit", folder, "--traps", "measure", "--workers", "2", "--journal", tmp_path / "j", "--json", report]
    process = subprocess.Popen(
        ["nohup", LLMTRAP, *map(str, command)], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(workers_of(process.pid)) == 2 or process.poll() is not None, "the workers to start")
    os.killpg(process.pid, signal.SIGHUP)
    shown, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, shown
    assert report.exists()


def test_two_signals_are_one(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "model", layers=6, scale=6)
    process = begun("audit", folder, "--traps", "measure", "--workers", "2", "--journal", tmp_path / "j")
    wait_for(lambda: len(workers_of(process.pid)) == 2, "the workers to start")
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    assert "carries on" in end(process, signal.SIGINT)


def test_workers_that_were_stopped_hold_nothing_up(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "model", layers=6, scale=6)
    process = begun("audit", folder, "--traps", "measure", "--workers", "2", "--journal", tmp_path / "j")
    wait_for(lambda: len(workers_of(process.pid)) == 2, "the workers to start")
    for number in workers_of(process.pid):
        os.kill(number, signal.SIGSTOP)
    assert "carries on" in end(process)
