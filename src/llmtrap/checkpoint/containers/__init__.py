"""Weight files: the table of containers, and the reader that asks the right one within limits that hold for all."""

from __future__ import annotations

import threading
from dataclasses import replace

from llmtrap.checkpoint.containers.base import FIRST_READ, MAX_TENSORS, Container, OpenFile
from llmtrap.checkpoint.containers.gguf import Gguf
from llmtrap.checkpoint.containers.pytorch import PyTorch
from llmtrap.checkpoint.containers.safetensors import Safetensors
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.tensors import FileContents
from llmtrap.errors import CheckpointError, UnsupportedError

__all__ = ["CONTAINERS", "MAX_TENSORS", "Container", "ContentsReader", "OpenFile", "read_contents"]

CONTAINERS: tuple[Container, ...] = (Safetensors(), PyTorch(), Gguf())

MAX_METADATA = 16 << 20
"""Characters of metadata kept of one checkpoint; a file whose own would be more counts as having none."""


class ContentsReader:
    """Reads the files of one checkpoint, several at once, within limits that hold for all of them together."""

    def __init__(self, source: Source):
        self._source = source
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._read = 0
        self._metadata = 0

    def read(self, file: FileEntry) -> FileContents:
        """One file's contents, as `read_contents` gives them.

        Raises:
            CheckpointError: as there, or the checkpoint has more than MAX_TENSORS.
        """
        contents = FileContents(())
        if self._read <= MAX_TENSORS:
            contents = _read(self._source, file, self._turn)
            with self._count:
                self._read += len(contents.tensors)
                self._metadata += sum(len(key) + len(str(value)) for key, value in contents.metadata.items())
                if self._metadata > MAX_METADATA:
                    contents = replace(contents, metadata={})
        if self._read > MAX_TENSORS:
            remedy = "Give the folder of one checkpoint"
            raise CheckpointError(f"over {MAX_TENSORS} tensors", file=self._source.identity.name, remedy=remedy)
        return contents


def read_contents(source: Source, file: FileEntry) -> FileContents:
    """What a weight file of any kind holds: tensors in the order of the file, metadata, what is left out.

    Raises:
        CheckpointError: the file lies about lengths, places, shapes or dtypes, or names a tensor twice.
        UnsafeFileError: what it holds could run code where it is loaded.
        UnsupportedError: no kind of weight file that is read.
    """
    return _read(source, file, threading.Lock())


def _read(source: Source, file: FileEntry, turn: threading.Lock) -> FileContents:
    head = source.read(ByteRange(file.name, 0, min(file.size, FIRST_READ)))
    return _container(file, head.tobytes()).read(OpenFile(source, file, head, turn))


def _container(file: FileEntry, head: bytes) -> Container:
    """By the name where that says it: a file that is something else under it is told so; else by the first bytes."""
    named = [container for container in CONTAINERS if file.name.endswith(container.suffixes)]
    found = named or [container for container in CONTAINERS if container.recognises(head)]
    if found:
        return found[0]
    problem = "neither its name nor its first bytes are those of a weight file that llmtrap reads"
    raise UnsupportedError(
        problem, file=file.name, remedy="Give the folder of a checkpoint, or one of its weight files"
    )
