"""A range of one file as a source of its own: a file within a file, such as a chunk of a distributed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity


class OffsetSource:
    """The bytes of one span of another source, counted from its start, under the same file's name.

    Args:
        source: where the bytes come from; it stays its owner's to close.
        span: the range that is the file here.
    """

    def __init__(self, source: Source, span: ByteRange):
        self._source = source
        self._span = span

    @property
    def identity(self) -> SourceIdentity:
        """That of the other source."""
        return self._source.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The one file."""
        return (FileEntry(self._span.file, self._span.size),)

    def read(self, span: ByteRange) -> Bytes:
        """A copy of these bytes."""
        return self._source.read(self._placed(span))

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes."""
        return self._source.open(self._placed(span))

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Read into the caller's array."""
        self._source.read_into(self._placed(span), out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Pass the hint on."""
        self._source.prefetch([self._placed(span) for span in spans])

    def close(self) -> None:
        """The other source is its owner's to close."""

    def _placed(self, span: ByteRange) -> ByteRange:
        return ByteRange(self._span.file, self._span.start + span.start, self._span.start + span.stop)
