"""Write a file so that it is either whole or not there, and never where a link of a stranger leads."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from llmtrap.errors import OutputError
from llmtrap.systems.files import hold, is_of_another
from llmtrap.systems.folders import Folder, open_folder, refuse_what_is_no_file

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_NAME_OTHERS = "Remove it, or name another place yourself"


def write_whole(path: Path, content: bytes, *, within: Path | None = None) -> None:
    """Write a file by way of a temporary one beside it, synced and then renamed over it.

    Missing folders are made. Temporary files that a killed run left for the same file are removed.

    Args:
        path: where to; an existing file is replaced.
        content: all of it.
        within: None where the user typed the whole path: then links in it are followed, and what is no file (a pipe,
            `/dev/stdout`) is written to directly. Else the folder down to which the user chose the place: below it
            no link is followed, since the folder may be a stranger's repository, and only a regular file is replaced.

    Raises:
        OutputError: the disk is full, the folder cannot be written, the path is a folder, or below `within` a link.
    """
    with explained(path):
        if within is None:
            if path.exists() and not path.is_file():
                path.write_bytes(content)
                return
            place = path.resolve()
            if place.is_symlink():  # from Python 3.13 on nothing is raised for links that go in a circle
                raise OSError(errno.ELOOP, "links that go in a circle")
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = open_folder(place.parent)
            name = place.name
        else:
            folder = _open_below(within, path.relative_to(within).parent.parts)
            name = path.name
        try:
            if within is not None:
                refuse_what_is_no_file(folder, name)
            _remove_left_behind(folder, name)
            _replace(folder, name, content)
        finally:
            folder.close()


def make_folder(folder: Path, *, within: Path) -> None:
    """Make a folder and those above it, following no link below `within`.

    Raises:
        OutputError: it cannot be made, or a part of the path is a link.
    """
    with explained(folder):
        _open_below(within, folder.relative_to(within).parts).close()


def _open_below(within: Path, parts: tuple[str, ...]) -> Folder:
    """A folder below another, held open; folders are made, links refused."""
    within.mkdir(parents=True, exist_ok=True)
    folder = open_folder(within)
    for part in parts:
        try:
            inner = folder.inner(part)
        finally:
            folder.close()
        folder = inner
    return folder


def _replace(folder: Folder, name: str, content: bytes) -> None:
    part = f".{name[:50]}.{secrets.token_hex(4)}.part"
    file = folder.open(part, _NEW_FILE)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 - a descriptor
            with contextlib.suppress(OSError):  # some cluster file systems have no locks
                hold(file)
            stream.write(content)
            stream.flush()
            os.fsync(file)
            if not folder.moves_open_files:
                stream.close()
            folder.replace(part, name)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.remove(part)
        raise


def _remove_left_behind(folder: Folder, name: str) -> None:
    """Remove temporary files of this name that no process holds any more."""
    pattern = re.compile(rf"\.{re.escape(name[:50])}\.[0-9a-f]{{8}}\.part")
    with contextlib.suppress(OSError):
        for left in folder.names():
            if pattern.fullmatch(left):
                _remove_unheld(folder, left)


def _remove_unheld(folder: Folder, name: str) -> None:
    with contextlib.suppress(OSError):
        file = folder.open(name, os.O_RDONLY)
        try:
            status = os.fstat(file)
            left = stat.S_ISREG(status.st_mode) and not is_of_another(status) and hold(file)
            if left and folder.moves_open_files:
                folder.remove(name)
        finally:
            os.close(file)
        if left and not folder.moves_open_files:
            folder.remove(name)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into an `OutputError` that says why and what to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # links that go in a circle; a null byte
        raise _explain(error, path) from error


def _explain(error: Exception, path: Path) -> OutputError:
    file = str(path)
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, RuntimeError):
        return OutputError("this link leads nowhere", file=file, remedy="Name another place.")
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError("the disk is full", file=file, remedy="Free some space, or write to another place.")
    if isinstance(error, PermissionError):
        return OutputError("no permission to write here", file=file, remedy="Name a folder that you may write to.")
    if isinstance(error, IsADirectoryError):
        return OutputError("this is a folder", file=file, remedy="Name a file in it.")
    if code == errno.ELOOP:
        return OutputError("a part of this path is a link, which is not followed", file=file, remedy=_NAME_OTHERS)
    if code == errno.ENXIO:
        return OutputError("this is not a regular file", file=file, remedy=_NAME_OTHERS)
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        problem = "a part of this path is a file or a link, not a folder"
        return OutputError(problem, file=file, remedy="Name another place.")
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return OutputError(f"cannot be written ({words})", file=file, remedy="Name another place.")
