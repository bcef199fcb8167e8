"""Watch a folder where a training run saves checkpoints, and audit each as it is complete.

A checkpoint counts as complete when nothing in it has changed for a while and its headers agree with its files. One
that is deleted or changed while it is audited (`save_total_limit`) is left out and named: its numbers would be of no
state that ever was. What was audited before is in the trajectory's file, so that a watch that was killed carries on.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmtrap.audit import Event, Finished
from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import LlmtrapError, OutputError, UsageError
from llmtrap.trajectory.document import Point
from llmtrap.trajectory.find import checkpoints_in
from llmtrap.trajectory.follow import Follower
from llmtrap.trajectory.steps import step_of

A_YEAR = 366.0 * 86_400

Signature = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Attributes:
        interval: seconds between two looks.
        settle: seconds for which nothing in a checkpoint may have changed before it counts as complete.
        idle: end after so many seconds without a new checkpoint; None goes on for ever.
        once: audit what is there and end, without waiting for what is not complete.

    Raises:
        UsageError: a number of seconds that nobody can wait for.
    """

    interval: float = 5.0
    settle: float = 10.0
    idle: float | None = None
    once: bool = False

    def __post_init__(self) -> None:
        longest = max(self.interval, self.settle, self.idle or 0.0)
        if not (self.interval > 0 and self.settle >= 0 and (self.idle is None or self.idle >= 0)) or longest > A_YEAR:
            problem = "--every must be more than 0, --settle and --idle not less, and none over a year"
            raise UsageError(problem, remedy="Give seconds, as 5 and 10")


@dataclass(frozen=True)
class Began:
    """The audit of a checkpoint begins."""

    path: Path
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Audited:
    """A checkpoint is audited, and a point of the trajectory."""

    path: Path
    point: Point


@dataclass(frozen=True)
class LeftOut:
    """A checkpoint is no point of the trajectory, and why; `for_now`: it is looked at again."""

    path: Path
    reason: str
    for_now: bool = False


@dataclass(frozen=True)
class Looked:
    """The folder was looked at, and nothing is ready; `waiting` checkpoints are not complete yet."""

    waiting: int


WatchEvent = Began | Event | Audited | LeftOut | Looked


def watch(folder: Path, follower: Follower, options: WatchOptions) -> Generator[WatchEvent]:
    """Audit the checkpoints of a folder as they are complete, in the order of their steps.

    Args:
        folder: where they appear.
        follower: what they are added to; points that it has already are not audited again.
        options: how to watch.

    Raises:
        TargetError: the folder cannot be read.
        OutputError: the journal cannot be written.
    """
    seen = _Seen({point.name for point in follower.points})
    last_news = time.monotonic()
    while True:
        found = [path for path in checkpoints_in(folder) if path.name not in seen.done]
        ready = [path for path in found if seen.is_settled(path, options.settle)]
        for path in ready:
            yield from _take(path, follower, seen)
            last_news = time.monotonic()
            break  # others may have been deleted meanwhile, or one may have come before them
        else:
            yield Looked(len(found))
            if options.once and not any(path.exists() for path in found if path.name not in seen.unopened):
                return
            if options.idle is not None and time.monotonic() - last_news > options.idle:
                return
            time.sleep(options.interval)


class _Seen:
    """What was seen of the folder so far: names that are done with, and since when the others are as they are."""

    def __init__(self, done: set[str]):
        self.done = done
        self.unopened: dict[str, str] = {}
        self._since: dict[str, tuple[Signature, float]] = {}

    def is_settled(self, path: Path, seconds: float) -> bool:
        """Whether nothing in it has changed for so long, since it last could not be opened."""
        signature = signature_of(path)
        known = self._since.get(path.name)
        if known is None or known[0] != signature:
            known = self._since[path.name] = (signature, time.monotonic())
            self.unopened.pop(path.name, None)
        changed = max((at for *_, at in signature), default=0) / 1e9
        still = time.monotonic() - known[1] >= seconds or time.time() - changed >= seconds
        return bool(signature) and still and path.name not in self.unopened


def _take(path: Path, follower: Follower, seen: _Seen) -> Iterator[WatchEvent]:
    """Audit one checkpoint that has settled."""
    before = signature_of(path)
    last = step_of(follower.points[-1].name) if follower.points else None
    mine = step_of(path.name)
    if last is not None and mine is not None and mine <= last:
        seen.done.add(path.name)
        yield LeftOut(path, f"it comes before {follower.points[-1].name}, which is audited already")
        return
    try:
        checkpoint = open_checkpoint(str(path))
    except LlmtrapError as error:
        if path.exists():
            seen.unopened[path.name] = error.message
            yield LeftOut(path, f"not complete, or not readable: {error.message}", for_now=True)
        else:
            seen.done.add(path.name)
            yield LeftOut(path, "deleted before it was audited")
        return
    yield Began(path, checkpoint)
    try:
        for event in follower.events(checkpoint, path.name, still=lambda: signature_of(path) == before):
            yield event
            if isinstance(event, Finished):
                seen.done.add(path.name)
                yield Audited(path, follower.points[-1])
                return
    except OutputError:
        raise
    except LlmtrapError as error:
        if signature_of(path) == before:
            seen.done.add(path.name)
            yield LeftOut(path, error.message)
            return
    if path.exists():
        yield LeftOut(path, "changed while it was audited", for_now=True)
    else:
        seen.done.add(path.name)
        yield LeftOut(path, "deleted while it was audited")


def signature_of(path: Path) -> Signature:
    """What tells whether anything in a checkpoint changed: the files with their sizes, inodes and times.

    Empty where there is nothing, or it vanishes meanwhile.
    """
    try:
        files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
        stats = [(str(item.relative_to(path.parent)), item.stat()) for item in files]
    except OSError:
        return ()
    return tuple(sorted((name, it.st_size, it.st_ino, it.st_mtime_ns, it.st_ctime_ns) for name, it in stats))
