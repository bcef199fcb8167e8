"""The parent's side: start a worker, call functions in it, and end it.

There are no threads, queues or semaphores here: what could hang, or be left behind, is not made.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from llmtrap.errors import UnsupportedError
from llmtrap.processes.interrupts import deferred
from llmtrap.processes.serving import Answer, ParentRequest, Raised
from llmtrap.systems.process import HAS_WORKERS, deaf

_PROGRAM = Path(__file__).with_name("child.py")
_STOP_SECONDS = 2.0
"""How long to wait for the end of processes that were killed, all together. One in the kernel's hands, at a file system
that does not answer, ends later by itself."""

_running: set[WorkerProcess] = set()


class WorkerDiedError(Exception):
    """The worker's process has ended, or broke off an answer; `exit_code` is negative for a signal, None if unknown."""

    def __init__(self, exit_code: int | None):
        super().__init__(f"the worker ended with exit code {exit_code}")
        self.exit_code = exit_code


class _InWorkerError(Exception):
    """Where in the worker an error was raised, as the cause of the error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def need_workers() -> None:
    """Make sure that there can be worker processes.

    Raises:
        UnsupportedError: this system is not POSIX.
    """
    if not HAS_WORKERS:
        raise UnsupportedError(
            "this needs worker processes, which only POSIX systems have", remedy="Run it under Linux, macOS or WSL"
        )


class WorkerProcess:
    """A Python process that calls one function after another. Functions and arguments are pickled.

    It ignores Ctrl-C and a closed terminal, which reach the whole group, and ends with this process.
    """

    def __init__(self) -> None:
        need_workers()
        try:
            with deferred():
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    self._process = _start(theirs)
                    self._connection: Connection = Connection(ours.detach())
                _running.add(self)
        except KeyboardInterrupt:  # it came meanwhile, and nobody else will know of this process
            stop_all(worker for worker in running() if worker is self)
            raise
        with contextlib.suppress(OSError):  # it is seen to have died when an answer is awaited
            self._connection.send(sys.path)

    @property
    def pid(self) -> int:
        """Its process's number."""
        return self._process.pid

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let it call a function; the answer comes by `answer`, and so does that it has ended."""
        message = pickle.dumps((function, arguments))
        with contextlib.suppress(OSError):
            self._connection.send_bytes(message)

    @property
    def alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process.poll() is None

    def answer(self) -> Answer:
        """The next answer to a call; waits for it.

        Raises:
            WorkerDiedError: it has ended.
        """
        try:
            return pickle.loads(self._connection.recv_bytes())  # type: ignore[no-any-return]  # noqa: S301
        except (EOFError, OSError):
            raise self._death() from None

    def result(self) -> Any:
        """The result of a call that tells nothing on its way.

        Raises:
            WorkerDiedError: it has ended.
            Exception: what the call raised.
        """
        return result_of(self.answer())

    def reply(self, give: Callable[[], Any]) -> None:
        """Send the bytes that the worker asked for, or why there are none; that it has ended is seen later.

        Args:
            give: returns a contiguous buffer.
        """
        try:
            data = memoryview(give())
        except Exception as error:
            with contextlib.suppress(OSError):
                self._connection.send(error)
            return
        with contextlib.suppress(OSError):
            self._connection.send(None)
            self._connection.send_bytes(data)

    def fileno(self) -> int:
        """What to wait for: readable where there is an answer, or the worker has ended."""
        return self._connection.fileno()

    def _death(self) -> WorkerDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has ended, or is about to with a code of its own
            self._process.wait(_STOP_SECONDS)
        stop_all([self])
        return WorkerDiedError(self._process.returncode)

    def kill(self) -> None:
        """End it, whatever it is doing; `stop_all` waits for that too."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def reap(self, seconds: float) -> None:
        """Wait for the end of a killed process, for so long at most, and close what led to it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        _running.discard(self)


def result_of(answer: Answer) -> Any:
    """What a call returned.

    Raises:
        Exception: what it raised.
    """
    if isinstance(answer, Raised):
        raise answer.error from _InWorkerError(answer.where)
    if isinstance(answer, ParentRequest):
        raise TypeError("the worker asked for bytes, and nobody gives any here")
    return answer.value


def wait_for_answers(workers: Sequence[WorkerProcess], seconds: float | None = None) -> list[WorkerProcess]:
    """The workers of which there is an answer, or that have ended; none after so many seconds."""
    by_descriptor = {worker.fileno(): worker for worker in workers}
    return [by_descriptor[ready] for ready in wait(list(by_descriptor), seconds) if isinstance(ready, int)]


def stop_all(workers: Iterable[WorkerProcess]) -> None:
    """End these workers, all at once and within seconds, whatever they are doing."""
    with deferred():
        ending = list(workers)
        for worker in ending:
            worker.kill()
        end = time.monotonic() + _STOP_SECONDS
        for worker in ending:
            worker.reap(max(0.0, end - time.monotonic()))


def running() -> list[WorkerProcess]:
    """The workers of this process that were not stopped."""
    return list(_running)


def kill_running() -> None:
    """Kill every worker of this process and wait for none: the last act of a process that must end now."""
    for worker in running():
        worker.kill()


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process with signals blocked: what it inherits holds until it has said what they mean to it."""
    with deaf():
        return subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", os.fspath(_PROGRAM), str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
