"""The faults that the loopback hub can be told to make, each a value, and rules for when to make them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Status:
    """Answer with this status and these headers instead."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """Cut the connection after this many bytes of the body; before the first header where None."""

    after: int | None


@dataclass(frozen=True)
class Stall:
    """Send this many bytes of the body, then nothing for so many seconds."""

    after: int
    seconds: float


@dataclass(frozen=True)
class Drip:
    """Send the body in bits of this size with a pause after each."""

    size: int
    pause: float


@dataclass(frozen=True)
class Whole:
    """Answer a range with the whole file and status 200."""


@dataclass(frozen=True)
class Shifted:
    """Answer a range with the one that begins so many bytes later."""

    by: int


@dataclass(frozen=True)
class Headers:
    """Send these headers instead of one's own of the same names."""

    values: dict[str, str]


@dataclass(frozen=True)
class Redirect:
    """Send the client elsewhere."""

    to: str


Fault = Status | Drop | Stall | Drip | Whole | Shifted | Headers | Redirect


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it: `where` is api, hub (a file's page at the hub) or cdn."""

    where: str
    method: str
    path: str
    file: str | None
    range: tuple[int, int] | None
    token: str | None
    headers: dict[str, str]


@dataclass
class Served:
    """What went out in answer to one request, and when (monotonic seconds)."""

    asked: Asked
    status: int
    at: float
    body: int = 0


Rule = Callable[[Asked], Fault | None]


def never(_: Asked) -> None:
    """No fault at all."""


def first(times: int, fault: Fault, where: str = "cdn", method: str = "GET") -> Rule:
    """Make a fault of the first so many requests to one place, and of no other."""
    return chosen(lambda number: number < times, fault, where, method)


def after(times: int, fault: Fault, where: str = "cdn", method: str = "GET") -> Rule:
    """Make a fault of every request to one place after the first so many."""
    return chosen(lambda number: number >= times, fault, where, method)


def always(fault: Fault, where: str = "cdn", method: str = "GET") -> Rule:
    """Make a fault of every request to one place."""
    return chosen(lambda _: True, fault, where, method)


def chosen(choose: Callable[[int], bool], fault: Fault, where: str, method: str) -> Rule:
    """Make a fault of those requests to one place whose number, from 0, is chosen."""
    numbers, lock = iter(range(1 << 62)), threading.Lock()

    def rule(asked: Asked) -> Fault | None:
        if (asked.where, asked.method) != (where, method):
            return None
        with lock:
            return fault if choose(next(numbers)) else None

    return rule


def withheld(file: str, seconds: float = 2.0) -> Rule:
    """Never give out what lies beyond a file's header: an audit reads the others and is then still under way."""

    def rule(asked: Asked) -> Fault | None:
        beyond = asked.where == "cdn" and asked.file == file and asked.range is not None and asked.range[0] > 0
        return Stall(0, seconds) if beyond else None

    return rule


def at_random(share: float, faults: list[Fault], seed: int) -> Rule:
    """Make one of these faults of a share of all requests, drawn with a fixed seed."""
    draw, lock = random.Random(seed), threading.Lock()

    def rule(_: Asked) -> Fault | None:
        with lock:
            return draw.choice(faults) if draw.random() < share else None

    return rule
