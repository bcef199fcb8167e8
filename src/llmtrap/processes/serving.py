"""The worker's side: call what the parent names, one call after another, and answer each."""

from __future__ import annotations

import pickle
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Told:
    """A sign of life in the course of a call."""

    value: Any


@dataclass(frozen=True)
class Returned:
    """What a call returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """What a call raised, and where, as text."""

    error: Exception
    where: str


@dataclass(frozen=True)
class ParentRequest:
    """Bytes that the parent has and the call needs: the worker waits for them."""

    request: Any


Answer = Told | ParentRequest | Returned | Raised

_asking = threading.Lock()
_parents: list[Connection] = []


def tell(value: Any) -> None:
    """Say something to the parent while a call is at work."""
    _parents[-1].send(Told(value))


def asks_a_parent() -> bool:
    """Whether this process is a worker that can `ask`."""
    return bool(_parents)


def ask(request: Any, out: Any) -> None:
    """Let the parent fill a buffer while a call is at work.

    Args:
        request: what the parent understands.
        out: a writable buffer of the size of the answer.

    Raises:
        Exception: what the parent could not do.
    """
    with _asking:
        parent = _parents[-1]
        parent.send(ParentRequest(request))
        error = parent.recv()
        if error is not None:
            raise error
        parent.recv_bytes_into(out)


def serve(connection: Connection) -> None:
    """Answer calls until the parent closes its end."""
    _parents.append(connection)
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        answer = _answer(message)
        try:
            _send(connection, answer)
        except OSError:  # the parent went away meanwhile
            return


def _answer(message: bytes) -> Returned | Raised:
    try:
        function, arguments = pickle.loads(message)  # noqa: S301 - from our own parent
        return Returned(function(*arguments))
    except Exception as error:
        return Raised(error, traceback.format_exc())


def _send(connection: Connection, answer: Returned | Raised) -> None:
    try:
        packed = pickle.dumps(answer)
        if isinstance(answer, Raised):
            pickle.loads(packed)  # noqa: S301 - an error may be packed and not be unpacked again
    except Exception as error:
        shown = answer.error if isinstance(answer, Raised) else error
        packed = pickle.dumps(Raised(RuntimeError(f"{type(shown).__name__}: {shown}"), traceback.format_exc()))
    connection.send_bytes(packed)
