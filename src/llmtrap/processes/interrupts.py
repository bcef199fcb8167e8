"""Ctrl-C, SIGTERM and SIGHUP: one exception for all three, never raised while a process is being started or ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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


def interrupt(number: int, _frame: FrameType | None = None) -> None:
    """The handler: raise, now or at the end of what must not be cut in two. A second signal changes nothing.

    Raises:
        Interrupted: always, but later inside `deferred`.
    """
    if _state.received:
        return
    if _state.depth:
        _state.waiting = number
        return
    _state.received = number
    raise Interrupted(number)


def received() -> int:
    """The signal that this process is ending by, or 0."""
    return _state.received


def forget() -> None:
    """Begin anew: no signal has come yet; or raise again one whose exception was lost."""
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
