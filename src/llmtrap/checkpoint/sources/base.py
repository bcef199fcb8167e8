"""What a source of bytes is: the one thing the rest of the checkpoint package knows about where files live."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint.

    `name` is relative to the checkpoint's root, with forward slashes. `digest` identifies the content where that is
    known without reading it (a hub's sha256 or etag), else None. `stamp` is what tells a changed file from the same
    one at no cost: size, times and inode of a local file, the etag for a hub's.
    """

    name: str
    size: int
    digest: str | None = None
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, stop) of one file."""

    file: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class SourceIdentity:
    """What the bytes belong to, for the report: kind is `folder`, `file`, `hub`, `remote` or `memory`."""

    name: str
    kind: str
    revision: str | None = None

    @property
    def label(self) -> str:
        """`NAME`, or `NAME@REVISION` where there is one."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def shown_name(self) -> str:
        """The name for a document or a log that others read: of a path on this machine its last part alone."""
        if self.kind not in ("folder", "file"):
            return self.name
        # A folder may be called `.`, and a disk has no name at all.
        return PurePath(os.path.abspath(self.name)).name or self.name  # noqa: PTH100 - a link keeps the name typed

    @property
    def shown_label(self) -> str:
        """As `label`, with the name to be shown."""
        return f"{self.shown_name}@{self.revision}" if self.revision else self.shown_name


class Source(Protocol):
    """The files of one checkpoint, read by byte ranges.

    A source is cheap to pickle and opens files lazily, so that each worker process holds its own. It is safe to use
    from several threads.
    """

    @property
    def identity(self) -> SourceIdentity:
        """Name, kind and pinned revision of the target."""
        ...

    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the checkpoint, subfolders included, sorted by name."""
        ...

    def read(self, span: ByteRange) -> Bytes:
        """Return a copy of these bytes. For headers, indexes and configurations.

        Raises:
            CheckpointError: the file is shorter than the range, or changed since it was listed.
        """
        ...

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes without a copy where that is possible; on exit their memory is given back.

        The array must not be used after the context ends.
        """
        ...

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into `out`, of the span's size: one copy less where they are the numbers themselves."""
        ...

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Say what will be opened from now on, in this order, perhaps more than once. A hint, that may be ignored.

        It replaces what earlier calls said: a remote source drops what is no longer named.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


@contextmanager
def lend(data: Bytes) -> Iterator[Bytes]:
    """Lend an array that is already in memory."""
    yield data
