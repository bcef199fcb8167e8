"""Commands in processes of their own that need not import the program: one that has imported it forks for each.

For tests of what a command reads, writes and costs. Those of what happens while it starts or ends run the real one.
"""

from __future__ import annotations

import atexit
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.processes import LLMTRAP, PATIENCE, environment, without_waiting

_TEMPLATE = """
import json, os, socket, sys
from llmtrap.cli import main
from llmtrap.cli.commands import function_of
for name in ("audit", "gate", "inspect", "merge", "report"):
    function_of(name)
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    asked, descriptors, _, _ = socket.recv_fds(server, 1 << 20, 2)
    if not asked:
        sys.exit()
    child = os.fork()
    if not child:
        break
    for descriptor in descriptors:
        os.close(descriptor)
    server.send(json.dumps([child]).encode())
    _, status, used = os.wait4(child, 0)
    server.send(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]).encode())
words, folder, environment = json.loads(asked)
os.setsid()
server.close()
for place, descriptor in enumerate(descriptors, 1):
    os.dup2(descriptor, place)
    os.close(descriptor)
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
sys.argv = words
main()
"""


@dataclass
class Running:
    """A command at work: its process's number, which is its session's too."""

    pid: int
    _server: socket.socket

    def ended(self, seconds: float = 3 * PATIENCE) -> tuple[int, float] | None:
        """Its exit code and the seconds of processor time it used; None if it goes on for longer than this."""
        self._server.settimeout(seconds)
        try:
            code, used = json.loads(self._server.recv(1000))
        except TimeoutError:
            return None
        return code, used


def begin(
    *arguments: str | Path, cwd: Path, stdout: IO[bytes], stderr: IO[bytes], env: Mapping[str, str] | None = None
) -> Running:
    """Begin a command; one is awaited before the next begins."""
    server = _template()
    asked = [[str(LLMTRAP), *map(str, arguments)], str(cwd), environment(**(env or {}))]
    socket.send_fds(server, [json.dumps(asked).encode()], [stdout.fileno(), stderr.fileno()])
    server.settimeout(PATIENCE)
    (pid,) = json.loads(server.recv(1000))
    return Running(pid, server)


def run(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, both outputs in files."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        ended = begin(*arguments, cwd=cwd, env=env, stdout=out, stderr=error).ended()
        assert ended is not None, f"{arguments} does not end"
        shown = []
        for file in (out, error):
            file.seek(0)
            shown.append(file.read().decode())
    words = [str(word) for word in arguments]
    return subprocess.CompletedProcess(words, ended[0], shown[0], without_waiting(shown[1]))


@cache
def _template() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _TEMPLATE, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment(),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    atexit.register(process.wait)
    atexit.register(ours.close)  # which is called first, and ends it
    return ours
