"""The stored bytes of one matrix, kept while it is measured and compared, so that its source is read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity, lend

KEPT_BYTES = 256 << 20
"""Stored bytes of a matrix that are kept. A larger one is read side by side with the other version, or once more."""


def is_kept(matrix: WeightMatrix) -> bool:
    """Whether the bytes are kept. One wider than tall is held decoded whatever its size: its bytes are fewer still."""
    rows, columns = matrix.shape
    return rows < columns or sum(run[-1].stop - run[0].start for run in _runs(matrix.spans())) <= KEPT_BYTES


class KeptSource:
    """A source whose bytes of one matrix are read once, and then given out as often as they are asked for."""

    def __init__(self, source: Source, matrix: WeightMatrix):
        self._source = source
        self._kept: list[tuple[ByteRange, Bytes]] = []
        if is_kept(matrix):
            runs = _runs(matrix.spans())
            self._kept = [(ByteRange(run[0].file, run[0].start, run[-1].stop), self._fetched(run)) for run in runs]

    @property
    def identity(self) -> SourceIdentity:
        """The source's."""
        return self._source.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The source's."""
        return self._source.files()

    def read(self, span: ByteRange) -> Bytes:
        """A copy of these bytes."""
        kept = self._find(span)
        return self._source.read(span) if kept is None else kept.copy()

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes."""
        kept = self._find(span)
        return self._source.open(span) if kept is None else lend(kept)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into the caller's array."""
        kept = self._find(span)
        if kept is None:
            self._source.read_into(span, out)
        else:
            out[:] = kept

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Pass on what is not here already."""
        self._source.prefetch([span for span in spans if self._find(span) is None])

    def close(self) -> None:
        """Let go of what was kept; the source stays open."""
        self._kept.clear()

    def _fetched(self, run: Sequence[ByteRange]) -> Bytes:
        data = np.empty(run[-1].stop - run[0].start, dtype=np.uint8)
        for span in run:
            self._source.read_into(span, data[span.start - run[0].start : span.stop - run[0].start])
        return data

    def _find(self, span: ByteRange) -> Bytes | None:
        for kept, data in self._kept:
            if kept.file == span.file and kept.start <= span.start and span.stop <= kept.stop:
                return data[span.start - kept.start : span.stop - kept.start]
        return None


def _runs(spans: Iterable[ByteRange]) -> list[list[ByteRange]]:
    """Ranges grouped so that within a group each begins where the one before it ends; none twice."""
    runs: list[list[ByteRange]] = []
    for span in sorted(set(spans), key=lambda span: (span.file, span.start, span.stop)):
        last = runs[-1][-1] if runs else None
        if last is not None and last.file == span.file and span.start <= last.stop:
            start = max(span.start, last.stop)
            if start < span.stop:
                runs[-1].append(ByteRange(span.file, start, span.stop))
        else:
            runs.append([span])
    return runs


@contextmanager
def kept(source: Source, matrix: WeightMatrix) -> Iterator[KeptSource]:
    """The source of one matrix while the block runs."""
    source_of_matrix = KeptSource(source, matrix)
    try:
        yield source_of_matrix
    finally:
        source_of_matrix.close()
