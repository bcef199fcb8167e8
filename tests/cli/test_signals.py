"""SIGTERM, as schedulers and `timeout` send it: a command ends as after Ctrl-C, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.processes import LLMTRAP, PATIENCE, environment, of_session, wait_for
from tests.support.small_checkpoint import write_small

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


def begun(*arguments: str | Path) -> subprocess.Popen[str]:
    """A command that is still at work."""
    return subprocess.Popen(
        [LLMTRAP, *map(str, arguments)], env=environment(PYTHONWARNINGS="default"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> str:
    """Send SIGTERM; what was shown by the time that all of it has ended."""
    process.send_signal(signal.SIGTERM)
    try:
        shown, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    wait_for(lambda: not of_session(process.pid), "its processes to end")
    assert process.returncode == 143, shown
    assert not any(word in shown for word in ("Traceback", "leaked", "Warning")), shown
    return shown


def test_an_audit_keeps_what_was_measured_and_says_how_to_carry_on(tmp_path: Path) -> None:
    folder, journals = write_small(tmp_path / "model", layers=6, scale=6), tmp_path / "journals"
    process = begun("audit", folder, "--traps", "measure", "--workers", "2", "--journal", journals, "--fresh")
    wait_for(lambda: any(b'"kind":"matrix"' in path.read_bytes() for path in journals.glob("*")), "a result")
    carry_on = end(process).splitlines()[-1]
    assert "what was measured is kept. The same command carries on: llmtrap audit" in carry_on
    assert "--fresh" not in carry_on


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="the extra 'weightwatcher' is not installed")
def test_verify_takes_weightwatcher_with_it(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((1500, 1500), dtype=np.float32)
    save_file({"a.weight": matrix}, tmp_path / "model.safetensors")
    process = begun("verify", tmp_path)
    wait_for(lambda: any("child.py" in command for command in of_session(process.pid).values()), "WeightWatcher")
    assert "llmtrap: interrupted" in end(process)
