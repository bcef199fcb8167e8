"""What a container is: a kind of weight file, recognised by its first bytes, that says which tensors it holds."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source
from llmtrap.checkpoint.tensors import FileContents
from llmtrap.errors import CheckpointError

MAX_TENSORS = 160_000
"""Tensors of one checkpoint: enough for a mixture of 60 layers and 384 experts with a tensor of scales each."""

FIRST_READ = 1 << 16
"""Bytes read from the start of every weight file: they say what it is, and often hold the whole header."""

LARGE = 4 << 20
"""Bytes of a header from which on it is read alone."""

DAMAGED = "The file is damaged or was cut short: fetch it again"


@dataclass(frozen=True)
class OpenFile:
    """A weight file about to be read: its first bytes are here, any other range on demand.

    `turn` is shared by all files of a checkpoint. A container holds it while it parses, and while it fetches a large
    header: many files may not take together what one may not.
    """

    source: Source
    entry: FileEntry
    head: Bytes
    turn: threading.Lock

    @property
    def name(self) -> str:
        """The file's name within its checkpoint."""
        return self.entry.name

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.entry.size

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes [start, stop).

        Raises:
            CheckpointError: the file has no such bytes.
        """
        if not 0 <= start <= stop <= self.size:
            problem = f"bytes {start} to {stop} were asked for, and the file has {self.size}"
            raise CheckpointError(problem, file=self.name, remedy=DAMAGED)
        if stop <= self.head.size:
            return self.head[start:stop]
        return self.source.read(ByteRange(self.name, start, stop))


class Container(ABC):
    """Reads what one kind of weight file holds. One subclass a module; `containers/__init__` holds the table.

    `suffixes` are those of the names under which such files are published.
    """

    name: str
    suffixes: tuple[str, ...]

    @abstractmethod
    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with these bytes is of this kind, or at least claims to be."""

    @abstractmethod
    def read(self, file: OpenFile) -> FileContents:
        """The file's tensors and what it says beside them, every claim checked against the file; no weight is read.

        Raises:
            CheckpointError: the file is broken or lies about lengths, places, shapes or dtypes.
            UnsafeFileError: what it holds could run code where it is loaded.
            UnsupportedError: a variant that is not read, by name.
        """
