"""Ranges fetched ahead of their use by a few threads, within bounds of memory.

What is named in advance is cut into pieces and fetched in that order, a budget ahead of the readers. A reader takes
pieces that are there, waits for those under way, and has the others fetched at once, before anything planned and
whatever the budget: it can never wait for memory that only it could free. What was named is kept after its first use,
as far as the limit of keeping goes, since a matrix may be read again; it is dropped when it is no longer named.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from llmtrap.checkpoint.sources.base import ByteRange, Bytes
from llmtrap.checkpoint.sources.hub.retry import ClosedError


class _State(Enum):
    PLANNED = auto()
    FETCHING = auto()
    READY = auto()
    FAILED = auto()


@dataclass(eq=False)
class _Piece:
    """A stretch of one file: fetched by one thread, held in one array.

    `named` tells that the latest plan covers it, `wanted` that a reader waits for it, `used` that one has read it to
    its end.
    """

    span: ByteRange
    state: _State = _State.PLANNED
    named: bool = False
    wanted: bool = False
    used: bool = False
    data: Bytes | None = None
    error: BaseException | None = None


@dataclass
class _File:
    """The pieces of one file that are planned or held, by position; they never overlap."""

    starts: list[int] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)

    def overlapping(self, start: int, stop: int) -> list[_Piece]:
        first = bisect.bisect_right(self.starts, start)
        if first and self.pieces[first - 1].span.stop > start:
            first -= 1
        return self.pieces[first : bisect.bisect_left(self.starts, stop)]

    def add(self, piece: _Piece) -> None:
        place = bisect.bisect_left(self.starts, piece.span.start)
        self.starts.insert(place, piece.span.start)
        self.pieces.insert(place, piece)

    def remove(self, piece: _Piece) -> bool:
        place = bisect.bisect_left(self.starts, piece.span.start)
        there = self.pieces[place : place + 1] == [piece]
        if there:
            del self.starts[place], self.pieces[place]
        return there


class Prefetcher:
    """Fetches ranges ahead of their use. Safe to use from several threads; its own threads start at the first use.

    Args:
        fetch: returns the bytes of one range; called from several threads.
        budget: bytes under way or waiting for their first use, at most (and, apart from them, bytes kept that no
            plan names).
        keep: bytes kept for a further use because the plan still names them, at most.
        piece: bytes of one request, at most.
        threads: requests at a time, at most.
    """

    def __init__(self, fetch: Callable[[ByteRange], Bytes], *, budget: int, keep: int, piece: int, threads: int):
        self._fetch = fetch
        self._budget = budget
        self._keep = keep
        self._size = piece
        self._threads = threads
        self._files: dict[str, _File] = {}
        self._plan: deque[_Piece] = deque()
        self._wanted: deque[_Piece] = deque()
        self._used: list[_Piece] = []
        self._ahead = 0  # bytes under way or waiting for their first use
        self._started = 0
        self._closed = False
        self._changed = threading.Condition()
        self.waited = 0.0

    def plan(self, spans: Iterable[ByteRange]) -> None:
        """Name what will be read from now on, in this order; what only earlier calls named is dropped."""
        with self._changed:
            if self._closed:
                return
            spans = _joined(spans, self._size)
            named = [piece for span in spans for piece in self._cover(span)]
            for piece in self._pieces():
                piece.named = False
            for piece in named:
                piece.named = True
            for piece in self._pieces():
                awaited = piece.wanted and piece.state is _State.PLANNED
                if not piece.named and not awaited and piece.state is not _State.FETCHING:
                    self._forget(piece)
            self._used = [piece for piece in self._used if piece.named]
            self._plan = deque(piece for piece in named if piece.state is _State.PLANNED)
            self._start_threads()
            self._changed.notify_all()

    def take(self, span: ByteRange) -> Bytes:
        """Return these bytes, read-only and perhaps shared, as soon as they are there.

        Raises:
            LlmtrapError: what fetching one of the pieces raised; asking again tries again.
            ClosedError: the prefetcher was closed.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            for piece in self._file(span.file).overlapping(span.start, span.stop):
                if piece.state is _State.FAILED:  # whoever asks gets a new try
                    self._forget(piece)
            pieces = self._cover(span)
            for piece in pieces:
                if piece.state is _State.PLANNED and not piece.wanted:
                    piece.wanted = True
                    self._wanted.append(piece)
            self._start_threads()
            self._changed.notify_all()
            self._wait_for(pieces)
            arrays = [piece.data for piece in pieces if piece.data is not None]
        return _assembled(span, pieces, arrays)

    def knows(self, span: ByteRange) -> bool:
        """Whether any of these bytes are here, under way or planned."""
        with self._changed:
            return bool(self._file(span.file).overlapping(span.start, span.stop))

    def done_with(self, span: ByteRange) -> None:
        """Say that these bytes were used: pieces whose end was reached make room for others."""
        with self._changed:
            for piece in self._file(span.file).overlapping(span.start, span.stop):
                if piece.state is _State.READY and not piece.used and piece.span.stop <= span.stop:
                    piece.used = True
                    self._ahead -= piece.span.size
                    self._used.append(piece)
            self._trim()
            self._changed.notify_all()

    def close(self) -> None:
        """Drop everything; threads end when the request in hand does."""
        with self._changed:
            self._closed = True
            self._files.clear()
            self._plan.clear()
            self._wanted.clear()
            self._used.clear()
            self._changed.notify_all()

    def _file(self, name: str) -> _File:
        return self._files.setdefault(name, _File())

    def _pieces(self) -> list[_Piece]:
        return [piece for file in self._files.values() for piece in file.pieces]

    def _cover(self, span: ByteRange) -> list[_Piece]:
        """The pieces that hold a span, in order; new ones for what no piece holds yet, cut evenly."""
        file, at = self._file(span.file), span.start
        for known in [*file.overlapping(span.start, span.stop), None]:
            gap = (known.span.start if known else span.stop) - at
            cuts = -(-gap // self._size) if gap > 0 else 0
            for cut in range(cuts):
                start, stop = at + gap * cut // cuts, at + gap * (cut + 1) // cuts
                file.add(_Piece(ByteRange(span.file, start, stop)))
            at = known.span.stop if known else at
        return file.overlapping(span.start, span.stop)

    def _wait_for(self, pieces: Sequence[_Piece]) -> None:
        began = time.monotonic()
        while not all(piece.state is _State.READY for piece in pieces):
            if self._closed:
                raise ClosedError
            failed = next((piece for piece in pieces if piece.error is not None), None)
            if failed is not None and failed.error is not None:
                raise failed.error
            self._changed.wait()
        self.waited += time.monotonic() - began

    def _work(self) -> None:
        """What each thread does: fetch the next piece, until closed."""
        while True:
            with self._changed:
                while (piece := self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait()
                piece.state = _State.FETCHING
                self._ahead += piece.span.size
            try:
                piece.data = self._fetch(piece.span)
            except BaseException as error:
                piece.error = error
            with self._changed:
                piece.state = _State.READY if piece.error is None else _State.FAILED
                if piece.state is _State.FAILED:
                    self._ahead -= piece.span.size
                if not piece.named and not piece.wanted:  # a later plan no longer names it
                    self._forget(piece)
                self._changed.notify_all()

    def _next(self) -> _Piece | None:
        """The piece to fetch now: what a reader waits for, else the next of the plan if there is room for it."""
        while self._wanted:
            piece = self._wanted.popleft()
            if piece.state is _State.PLANNED:
                return piece
        while self._plan and self._plan[0].state is not _State.PLANNED:
            self._plan.popleft()
        if self._plan and self._ahead + self._plan[0].span.size <= self._budget:
            return self._plan.popleft()
        return None

    def _trim(self) -> None:
        """Keep within bounds: of what no plan names the latest is worth most, of a matrix read over and over any."""
        loose = [piece for piece in self._used if not piece.named]
        named = [piece for piece in reversed(self._used) if piece.named]
        for kept, limit in ((loose, self._budget), (named, self._keep)):
            excess = sum(piece.span.size for piece in kept) - limit
            for piece in kept:
                if excess <= 0:
                    break
                excess -= piece.span.size
                self._used.remove(piece)
                self._forget(piece)

    def _forget(self, piece: _Piece) -> None:
        if self._file(piece.span.file).remove(piece) and piece.state is _State.READY and not piece.used:
            self._ahead -= piece.span.size

    def _start_threads(self) -> None:
        waiting = len(self._plan) + len(self._wanted)
        while self._started < min(self._threads, waiting):
            self._started += 1
            # Daemons: an interrupted audit ends at once, not when the requests under way do.
            threading.Thread(target=self._work, name=f"llmtrap-hub-{self._started}", daemon=True).start()


def _joined(spans: Iterable[ByteRange], longest: int) -> list[ByteRange]:
    """Spans by their first use, each joined with the later ones that continue it, as long as one request holds them.

    A matrix whose numbers and scales lie apart is named by turns, a few rows of each; so the two become two requests.
    """
    joined: list[ByteRange] = []
    ends: dict[tuple[str, int], int] = {}
    for span in spans:
        place = ends.pop((span.file, span.start), None)
        if place is not None and span.stop - joined[place].start <= longest:
            joined[place] = ByteRange(span.file, joined[place].start, span.stop)
        else:
            place = len(joined)
            joined.append(span)
        ends[span.file, span.stop] = place
    return joined


def _assembled(span: ByteRange, pieces: list[_Piece], arrays: list[Bytes]) -> Bytes:
    """The bytes of a span out of the pieces that cover it: a view where one does, else a copy."""
    cuts = [
        data[max(span.start - piece.span.start, 0) : span.stop - piece.span.start]
        for piece, data in zip(pieces, arrays, strict=True)
    ]
    whole = cuts[0] if len(cuts) == 1 else np.concatenate([np.empty(0, np.uint8), *cuts])
    view = whole.view()
    view.flags.writeable = False
    return view
