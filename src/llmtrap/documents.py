"""Files from others that are read whole or piece by piece: regular ones only, opened once, bounded in size."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmtrap.printable import printable
from llmtrap.systems.files import open_file


class DocumentError(Exception):
    """Why a file is not read: the problem, and the remedy where there is one."""

    def __init__(self, problem: str, remedy: str | None = None):
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@contextmanager
def open_document(path: Path, limit: int, what: str, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file of at most so many bytes; what is looked at is what is read.

    Args:
        path: the file.
        limit: the most bytes that it may have.
        what: what it is meant to be, for errors: `report`, `policy`.
        follow: whether a link as the last part of the path is followed: only where the user named the file itself.

    Raises:
        DocumentError: it is not there, no regular file, too large, or reading it failed.
    """
    try:
        descriptor = open_file(path, follow=follow)
    except (OSError, ValueError) as error:
        raise _explained(error, what, follow=follow) from error
    try:
        _check(os.fstat(descriptor), limit, what)
    except DocumentError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise _explained(error, what, follow=follow) from error


def read_document(path: Path, limit: int, what: str, *, follow: bool = True) -> bytes:
    """All bytes of such a file.

    Raises:
        DocumentError: as `open_document`; also where the file grew beyond the limit meanwhile.
    """
    with open_document(path, limit, what, follow=follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DocumentError(f"over {limit:,} bytes, more than any {what}", f"Name a {what} that llmtrap wrote")
    return content


def _check(status: os.stat_result, limit: int, what: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DocumentError(f"this is a folder, not a {what}", "Name the file in it")
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError("this is not a regular file", f"Write the {what} to a file, and name that")
    if status.st_size > limit:
        raise DocumentError(f"over {limit:,} bytes, more than any {what}", f"Name a {what} that llmtrap wrote")


def _explained(error: OSError | ValueError, what: str, *, follow: bool) -> DocumentError:
    if isinstance(error, FileNotFoundError):
        return DocumentError(f"there is no such {what}", "Check the path")
    if isinstance(error, ValueError):
        return DocumentError("no file can have this name (a null character)", "Check the path")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DocumentError("cannot be opened (too many files are open)", "Raise the limit (ulimit -n 1024)")
    if error.errno == errno.ELOOP and not follow:
        return DocumentError("this is a link, which is not followed", "Remove it, or put the file itself in its place")
    if error.errno == errno.ELOOP:
        return DocumentError("cannot be opened (links that go in a circle)", "Name the file itself")
    if error.errno == errno.ENXIO:
        return DocumentError("this is not a regular file", f"Write the {what} to a file, and name that")
    return DocumentError(
        f"cannot be read ({printable(error.strerror or str(error), 200)})", "Check its permissions and its disk"
    )
