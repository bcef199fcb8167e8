"""Local files as a source: a folder or one file, read by positioned reads into buffers that are used again.

Positioned reads rather than a mapping, for two reasons. A mapped file that another process cuts short kills the reader
with SIGBUS, where a read comes back short and can be reported; and measured on a warm 1 GB file in slices of 8.8 MB,
`preadv` into a buffer used again gave 5.4 GB/s, a mapping with its pages dropped after each slice 3.3 GB/s. Memory is
bounded by what is lent at one time, and no file page ever counts as the process's own.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity
from llmtrap.checkpoint.sources.listing import Listing, is_unchanged, list_file, list_folder
from llmtrap.errors import CheckpointError, TargetError
from llmtrap.systems.files import open_file, read_ahead, read_at

_KEPT_BUFFERS = 4
_KEPT_BYTES = 64 << 20
_ONE_READ = 1 << 30  # Linux reads at most 2 GiB - 4 KiB in one call

_SHORT = "The file is being written or was cut short: copy it again and start over"
_CHANGED = "Wait until nothing writes to the checkpoint, then start over"


class LocalSource:
    """The files under one folder, or one file (with the `config.json` beside it).

    Picklable: a copy carries the listing and opens files by itself, so a worker notices a file that changed since the
    plan was made. Safe to use from several threads.

    Args:
        path: an existing folder or regular file.

    Raises:
        TargetError: the path does not exist, or is neither a folder nor a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        target = Path(path)
        if not target.exists():
            raise TargetError("no such file or folder", file=str(target), remedy="Check the path")
        self._folder = target.is_dir()
        if self._folder:
            self._listing: Listing = list_folder(target.resolve())
        elif target.is_file():
            self._listing = list_file(target)
        else:
            raise TargetError("not a regular file or folder", file=str(target), remedy="Give a checkpoint's folder")
        self._identity = SourceIdentity(name=str(target), kind="folder" if self._folder else "file")
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._descriptors: dict[str, int] = {}
        self._buffers: list[Bytes] = []

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder, "_listing": self._listing, "_identity": self._identity}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def identity(self) -> SourceIdentity:
        """Name and kind of the target."""
        return self._identity

    @property
    def refused(self) -> dict[str, str]:
        """Files that were seen and will not be opened, with the reason: name → reason."""
        return self._listing.refused

    def files(self) -> tuple[FileEntry, ...]:
        """Every readable file, subfolders included, sorted by name."""
        return self._listing.files

    def read(self, span: ByteRange) -> Bytes:
        """Return a copy of these bytes.

        Raises:
            CheckpointError: the file is shorter than the range, or changed since it was listed.
        """
        self._check(span)
        data = np.empty(span.size, dtype=np.uint8)
        self._fill(span, data)
        return data

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        """Lend these bytes in a buffer that the next caller will use again."""
        self._check(span)
        buffer = self._borrow(span.size)
        try:
            data = buffer[: span.size]
            self._fill(span, data)
            yield data
        finally:
            self._give_back(buffer)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Read straight into the caller's array."""
        self._check(span)
        self._fill(span, out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Ask the kernel to read ahead; costs nothing where the pages are already there."""
        for span in spans:
            read_ahead(self._descriptor(span.file), span.start, span.size)

    def close(self) -> None:
        """Close all files and drop the buffers."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()
            self._buffers.clear()

    def __enter__(self) -> LocalSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_lock" in self.__dict__:
            self.close()

    def _check(self, span: ByteRange) -> None:
        """Refuse a range outside the file before anything is allocated for it."""
        entry = self._listing.entries.get(span.file)
        if entry is None:
            raise CheckpointError("no such file in the checkpoint", file=span.file)
        if not 0 <= span.start <= span.stop <= entry.size:
            problem = f"bytes {span.start} to {span.stop} were asked for, and the file has {entry.size}"
            raise CheckpointError(problem, file=span.file, remedy=_SHORT)

    def _fill(self, span: ByteRange, data: Bytes) -> None:
        descriptor = self._descriptor(span.file)
        view, done = memoryview(data.data), 0
        while done < span.size:
            try:
                got = read_at(descriptor, view[done : done + _ONE_READ], span.start + done)
            except OSError as error:
                raise CheckpointError(f"reading failed ({error.strerror})", file=span.file) from error
            if got == 0:
                problem = f"the file ended at byte {span.start + done} while bytes up to {span.stop} were read"
                raise CheckpointError(problem, file=span.file, remedy=_SHORT)
            done += got
        self._check_unchanged(span.file, descriptor)

    def _descriptor(self, name: str) -> int:
        with self._lock:
            descriptor = self._descriptors.get(name)
            if descriptor is not None:
                return descriptor
            path = self._listing.paths[name]
            try:
                # Not blocking: a file replaced by a FIFO since it was listed must not hang the audit.
                descriptor = open_file(path)
            except OSError as error:
                problem = f"cannot be opened ({error.strerror})"
                too_many = error.errno in (errno.EMFILE, errno.ENFILE)
                remedy = "Raise the limit of open files (ulimit -n)" if too_many else "Check its permissions"
                raise CheckpointError(problem, file=name, remedy=remedy) from error
            try:
                self._check_unchanged(name, descriptor)
            except CheckpointError:
                os.close(descriptor)
                raise
            self._descriptors[name] = descriptor
            return descriptor

    def _check_unchanged(self, name: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not is_unchanged(self._listing.entries[name].stamp, status):
            raise CheckpointError("the file changed while it was audited", file=name, remedy=_CHANGED)

    def _borrow(self, size: int) -> Bytes:
        with self._lock:
            for position, buffer in enumerate(self._buffers):
                if buffer.size >= size:
                    return self._buffers.pop(position)
            if self._buffers:
                self._buffers.pop(0)  # too small for what is read now: let it go rather than grow the pool
        return np.empty(size, dtype=np.uint8)

    def _give_back(self, buffer: Bytes) -> None:
        with self._lock:
            if len(self._buffers) < _KEPT_BUFFERS and buffer.size <= _KEPT_BYTES:
                self._buffers.append(buffer)
                self._buffers.sort(key=len)
