"""How the command line ends by Ctrl-C, SIGTERM or SIGHUP: cleanly, with 130, 143 or 129, and within seconds.

While there is nothing to clean up (imports, arguments) a signal ends the process at once. In a command's own work it is
an exception, so that workers are ended, half-written files removed and the terminal restored on its way out.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from llmtrap.processes import interrupts
from llmtrap.systems.process import ALARM, ENDING, wake_main_thread

if TYPE_CHECKING:
    import socket

LAST_SECONDS = 5.0
"""From a signal to the end of the process, whatever its clean-up waits for."""

_NUDGE_SECONDS = 0.05
"""How often the main thread is woken until it has raised what a signal means."""


def end_at_once() -> None:
    """Let each of the signals end this process without a word, but those that the caller has it ignore (`nohup`)."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    # Python gives signals their defaults back in its last moments, when all is done and written
    atexit.register(_ignore)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _ignore() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` for a signal inside the block; `LAST_SECONDS` later the process ends in any case."""
    usual = (signal.SIG_DFL, signal.default_int_handler, _end)
    numbers = [number for number in ENDING if signal.getsignal(number) in usual]
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    interrupts.forget()
    before: dict[int, Any] = {number: signal.signal(number, interrupts.interrupt) for number in numbers}
    if ALARM is not None:
        before[ALARM] = signal.signal(ALARM, interrupts.again)
    hook, sys.unraisablehook = sys.unraisablehook, _not_lost
    import socket

    reading, writing = socket.socketpair()  # of pipes Windows cannot tell which has something to read
    writing.setblocking(False)
    wakes = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reading,), name="last-seconds", daemon=True)
    watch.start()
    try:
        yield
    finally:
        with interrupts.deferred():
            _stop_forgotten_workers()
            signal.set_wakeup_fd(wakes)
            writing.close()
            watch.join(1.0)  # an alarm of its after the handlers have gone would end the process
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)


def _stop_forgotten_workers() -> None:
    """A signal between the start of a worker and the moment that its owner knows of it leaves one behind."""
    if "llmtrap.processes.worker" in sys.modules:
        from llmtrap.processes.worker import running, stop_all

        stop_all(running())


def _watch(reading: socket.socket) -> None:
    """End the process some seconds after a signal: what it waits for, in Python or in a library, may never come."""
    while byte := reading.recv(1):
        if byte[0] not in ENDING:
            continue
        number, last = byte[0], time.monotonic() + LAST_SECONDS
        while (left := last - time.monotonic()) > 0:
            if not select.select([reading], [], [], min(left, _NUDGE_SECONDS))[0]:
                _nudge()
            elif not reading.recv(1):
                reading.close()
                return
        from llmtrap.processes.worker import kill_running

        kill_running()
        os._exit(128 + number)
    reading.close()


def _nudge() -> None:
    """Let the main thread look for a signal again: one may wait for the end of an import, or was caught in a callback.

    Python calls a handler between two instructions. One that came just before the thread fell asleep in the system
    would be noticed when it wakes; an alarm wakes it.
    """
    if interrupts.received() or wake_main_thread():
        return
    if number := interrupts.waiting():
        signal.raise_signal(number)


def _not_lost(unraisable: sys.UnraisableHookArgs) -> None:
    """An interruption that fell into a finaliser or a callback, where Python can only print it, comes once more."""
    if isinstance(unraisable.exc_value, interrupts.Interrupted):
        interrupts.lost()
        return
    sys.__unraisablehook__(unraisable)
