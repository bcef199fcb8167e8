"""What a signal does where an exception cannot be raised: in a library that is being imported."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.processes import environment

SENDS = "import os; os.kill(os.getpid(), {number}); [None for _ in range(100_000)]"
MAIN = """
import sys, time
from llmtrap.cli.ending import interruptible
from llmtrap.processes.interrupts import Interrupted
try:
    with interruptible():
        import outer
        time.sleep(50)
        print("not interrupted")
except Interrupted as stop:
    print("ended by", stop.number)
print("and whole" if all(sys.modules[name].whole for name in ("outer", "inner")) else "in pieces")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends itself a signal")
@pytest.mark.parametrize(("number", "catches"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_an_import_is_finished_before_a_signal_ends_the_command(tmp_path: Path, number: int, catches: bool) -> None:
    """Within one, C++ may have called Python, and could not pass the exception on; or a module catches everything."""
    sends = SENDS.format(number=int(number))
    (tmp_path / "inner.py").write_text(
        f"try:\n    {sends}\nexcept BaseException:\n    pass\nwhole = True" if catches else f"{sends}\nwhole = True"
    )
    (tmp_path / "outer.py").write_text("import inner\nwhole = True")
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        check=False,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"ended by {int(number)}\nand whole\n", "")
