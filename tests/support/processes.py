"""Runs the real command line in processes of its own, and looks after what it leaves behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LLMTRAP = Path(sys.executable).with_name("llmtrap")
# Long enough for the busiest machine; only a test that fails waits so long.
PATIENCE = 120.0


def environment(**changed: str) -> dict[str, str]:
    """The tests' plain surroundings, and what a test sets for itself is not for the command either."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMTRAP_", "COLUMNS"))}
    return {**kept, "PYTHONWARNINGS": "error", **changed}


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    patience: float = 3 * PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run `llmtrap` to its end, both outputs in pipes.

    What it says to whoever waits long is left out: how long a start takes is the machine's affair.
    """
    done = subprocess.run(
        [LLMTRAP, *map(str, arguments)], cwd=cwd, env=environment(**(env or {})), capture_output=True, check=False,
        text=True, input=text, timeout=patience,
    )  # fmt: skip
    done.stderr = without_waiting(done.stderr)
    return done


def without_waiting(said: str) -> str:
    """Standard error without the lines for whoever waits on a busy machine."""
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("llmtrap: still "))


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `llmtrap` in a session of its own, its output thrown away; it does not outlive the block."""
    process = subprocess.Popen(
        [LLMTRAP, *map(str, arguments)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], what: str, pause: float = 0.005) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(pause)


def of_session(session: int) -> dict[int, str]:
    """The processes of a session that still run, with their command lines."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def workers_of(session: int) -> list[int]:
    """The worker processes of a session that run their program: a fork that has yet to become one is none."""
    return [number for number, command in of_session(session).items() if "child.py" in command]


def has_open(process: int, folder: Path) -> bool:
    """Whether a process has a file of this folder open."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:  # it has ended, or is not ours to look at
        return False
    return any(link.startswith(f"{folder}/") for link in links)


class Terminal:
    """A process on a terminal of its own: what it prints, and keys to press."""

    def __init__(self, command: Sequence[str | Path]):
        self.process, self._master, self._slave = _fork_on_terminal([str(word) for word in command])
        self.output = ""

    def read(self, seconds: float = 0.01) -> None:
        """Take what it has printed."""
        while self._master >= 0 and select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side is closed
                return
            if not data:
                return
            self.output += data.decode(errors="replace")

    def shows(self, words: str) -> bool:
        """Whether these words have been printed."""
        self.read()
        return words in self.output

    def press(self, keys: bytes) -> None:
        """Press keys: the terminal turns Ctrl-C into SIGINT for the whole foreground group."""
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the terminal, as a lost connection does: the foreground group gets SIGHUP."""
        os.close(self._slave)
        os.close(self._master)
        self._master = -1

    def wait(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.process, os.WNOHANG)
            if pid:
                self.read()
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("the process does not end")


def _fork_on_terminal(command: Sequence[str]) -> tuple[int, int, int]:
    """Start a command as the leader of a new session on a new terminal; its id, our end of the terminal, the other."""
    master, slave = os.openpty()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", _ON_TERMINAL, os.ttyname(slave), *command],
        {**environment(), "TERM": "xterm-256color", "COLUMNS": "100"},
        setsid=True,
    )
    # The other end stays open until theirs is: a terminal without any reads as closed
    return process, master, slave


_ON_TERMINAL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(terminal, stream)
os.execv(sys.argv[2], sys.argv[2:])
"""
