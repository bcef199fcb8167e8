"""A name in a text file of one line: read with a limit, and kept inside the folder."""

from __future__ import annotations

import posixpath

from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.errors import CheckpointError

MAX_LINE = 1000


def read_line(source: Source, file: FileEntry) -> str:
    """The plain path that a small text file names.

    Raises:
        CheckpointError: it is larger than a name, no text, or leads out of the folder.
    """
    text = ""
    if file.size <= MAX_LINE:
        text = source.read(ByteRange(file.name, 0, file.size)).tobytes().decode("utf-8", "replace").strip()
    if not text or not text.isprintable() or posixpath.normpath(text) != text or text.startswith(("/", "..", "\\")):
        problem = "it should name a folder beside it, and does not"
        raise CheckpointError(problem, file=file.name, remedy="Give the folder of one step as the target")
    return text
