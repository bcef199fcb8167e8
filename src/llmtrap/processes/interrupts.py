"""Ctrl-C, SIGTERM and SIGHUP: one exception for all three.

It is never raised while a process is being started or ended, nor inside an import: a library's C++ that Python code is
called from while it sets itself up ends the process by `terminate`, and some modules catch whatever is raised in them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_IMPORTS = "<frozen importlib."  # how the names of the files of Python's own import begin


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    """Of this process: `received` is the signal that ends it, `waiting` one that came while none may be raised."""

    received = 0
    waiting = 0
    depth = 0


_state = _State()


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """The handler: raise, now or at the end of what must not be cut in two. A second signal changes nothing.

    Raises:
        Interrupted: always, but later inside `deferred` and inside an import.
    """
    if _state.received:
        return
    if _state.depth or _imports(frame):
        _state.waiting = _state.waiting or number
        return
    _state.waiting = 0
    _state.received = number
    raise Interrupted(number)


def again(_number: int = 0, frame: FrameType | None = None) -> None:
    """The handler of an alarm: raise the signal that waits, if there is one and nothing holds it back any more.

    Raises:
        Interrupted: as `interrupt` does.
    """
    if _state.waiting:
        interrupt(_state.waiting, frame)


def lost() -> None:
    """What was raised fell into a place where nobody can hear it: it waits for `again`."""
    _state.waiting, _state.received = _state.received, 0


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a signal came."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False


def received() -> int:
    """The signal that this process is ending by, or 0."""
    return _state.received


def waiting() -> int:
    """The signal that was held back, or 0."""
    return _state.waiting


def forget() -> None:
    """Begin anew: no signal has come yet."""
    _state.received = _state.waiting = 0


@contextmanager
def deferred() -> Iterator[None]:
    """Raise no `Interrupted` inside the block; a signal that came meanwhile is raised at its end."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread alone
        yield
        return
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
        if not _state.depth and _state.waiting:
            number, _state.waiting = _state.waiting, 0
            interrupt(number)
