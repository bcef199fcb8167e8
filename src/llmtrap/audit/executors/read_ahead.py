"""Reading ahead for a device: a thread reads what comes next while the device computes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from llmtrap.checkpoint import Source
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity, lend

BUDGET = 256 << 20
"""Bytes that may lie ready: several experts of the largest models, as they are stored."""


class ReadAhead:
    """A source whose `prefetch` reads, in order, up to the budget. What was read is given out once.

    Args:
        source: read by this thread and the one that reads ahead.
        budget: bytes that may lie ready.
    """

    def __init__(self, source: Source, budget: int = BUDGET):
        self._source = source
        self._budget = budget
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: dict[ByteRange, Future[Bytes]] = {}

    @property
    def identity(self) -> SourceIdentity:
        """The source's."""
        return self._source.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The source's."""
        return self._source.files()

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Read these from now on, and drop what is no longer named."""
        named = tuple(spans)
        self._source.prefetch(named)
        wanted, size = [], 0
        for span in named:
            size += span.size
            if size > self._budget:
                break
            wanted.append(span)
        for span in self._ahead.keys() - set(wanted):
            self._ahead.pop(span).cancel()
        for span in wanted:
            if span not in self._ahead:
                self._ahead[span] = self._reader.submit(self._source.read, span)

    def read(self, span: ByteRange) -> Bytes:
        """These bytes: from what was read ahead, or at once where that has not begun.

        Raises:
            CheckpointError: reading them failed, now or ahead.
        """
        ahead = self._ahead.pop(span, None)
        if ahead is None or ahead.cancel():
            return self._source.read(span)
        return ahead.result()

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """The same, lent."""
        return lend(self.read(span)) if span in self._ahead else self._source.open(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """The same, into the caller's array."""
        if span in self._ahead:
            out[:] = self.read(span)
        else:
            self._source.read_into(span, out)

    def close(self) -> None:
        """Stop reading ahead; the source stays open."""
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()
