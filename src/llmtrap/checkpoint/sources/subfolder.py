"""One folder or file of a larger source, as a source of its own: `org/pipe/text_encoder` of `org/pipe`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity
from llmtrap.errors import TargetError

_SHOWN = 10


class SubfolderSource:
    """The files below one folder of a source, by their names within it. Picklable as the other source is.

    Args:
        source: the whole, which is closed with this.
        folder: the folder's path in it, without a slash at either end; empty for the whole.
        file: one weight file of the folder: others of its kind are not seen.

    Raises:
        TargetError: the source has no such folder.
    """

    def __init__(self, source: Source, folder: str, file: str | None = None):
        self._source = source
        self._folder = folder
        self._file = file
        self._prefix = f"{folder}/" if folder else ""
        if not any(file.name.startswith(self._prefix) for file in source.files()):
            folders = {file.name.rpartition("/")[0] for file in source.files()} - {""}
            there = ", ".join(printable(name, 60) for name in sorted(folders, key=natural_key)[:_SHOWN])
            remedy = f"Give one of its folders: {there}" if there else "It has no folders: leave the subfolder out"
            problem = f"there is no folder {printable(folder)!r} in it"
            raise TargetError(problem, file=source.identity.label, remedy=remedy)

    @property
    def identity(self) -> SourceIdentity:
        """The other source's, with the folder or file at the end of its name."""
        whole = self._source.identity
        return replace(whole, name="/".join(part for part in (whole.name, self._folder, self._file) if part))

    @property
    def refused(self) -> dict[str, str]:
        """Files of the folder that will not be read, with the reason."""
        refused: dict[str, str] = getattr(self._source, "refused", {})
        start = len(self._prefix)
        return {name[start:]: reason for name, reason in refused.items() if name.startswith(self._prefix)}

    def files(self) -> tuple[FileEntry, ...]:
        """The files of the folder, sorted by name."""
        start = len(self._prefix)
        found = [file for file in self._source.files() if file.name.startswith(self._prefix)]
        files = [replace(file, name=file.name[start:]) for file in found]
        if self._file is None:
            return tuple(files)
        suffix = posixpath.splitext(self._file)[1]
        return tuple(file for file in files if file.name == self._file or not file.name.endswith(suffix))

    def is_local(self, file: str) -> bool:
        """Whether this file is read from a disk and not over the network."""
        is_local = getattr(self._source, "is_local", None)
        return True if is_local is None else bool(is_local(self._prefix + file))

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
        """Close the whole source."""
        self._source.close()

    def _placed(self, span: ByteRange) -> ByteRange:
        return replace(span, file=self._prefix + span.file)
