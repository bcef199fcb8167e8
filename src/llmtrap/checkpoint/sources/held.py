"""A source that keeps a few ranges once they were read: those that every block of rows of one matrix needs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity, lend


class HeldRanges:
    """Another source, of which the ranges named are read at their first use and kept from then on, read-only.

    Args:
        source: where the bytes come from.
        ranges: what to keep; whatever else is asked for is passed on.
    """

    def __init__(self, source: Source, ranges: Iterable[ByteRange]):
        self._source = source
        self._held: dict[ByteRange, Bytes | None] = dict.fromkeys(ranges)

    @property
    def identity(self) -> SourceIdentity:
        """That of the other source."""
        return self._source.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The files of the other source."""
        return self._source.files()

    def read(self, span: ByteRange) -> Bytes:
        """These bytes: the ones that are kept, or a copy."""
        if span not in self._held:
            return self._source.read(span)
        data = self._held[span]
        if data is None:
            data = self._source.read(span)
            data.flags.writeable = False
            self._held[span] = data
        return data

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes."""
        return lend(self.read(span)) if span in self._held else self._source.open(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into the caller's array."""
        self._source.read_into(span, out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Pass the hint on."""
        self._source.prefetch(spans)

    def close(self) -> None:
        """The other source is its owner's to close."""
