"""Files opened, read, locked and linked, with the flags and calls that the system has."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def _flags(*names: str) -> int:
    """Those of the flags that the system knows, together."""
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


NO_LINK = _flags("O_NOFOLLOW")
"""Refuse a link as the last part of a path; 0 where links have to be looked for."""

FOR_ALL = _flags("O_CLOEXEC", "O_NOINHERIT", "O_BINARY")
"""What every opening has: not inherited by other programs, and bytes as they are."""

# Not blocking: a FIFO must not hold up whoever opens it. No controlling terminal may be won by opening a device.
_NO_WAIT = _flags("O_NONBLOCK", "O_NOCTTY")

_one_at_a_time = threading.Lock()


def open_file(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666, *, follow: bool = True) -> int:
    """A descriptor of a file; never waits for the other end of a pipe.

    Args:
        path: the file.
        flags: as for `os.open`, without those that only some systems know.
        mode: the permissions of a new file.
        follow: whether a link as the last part of the path is followed. A system without `O_NOFOLLOW` looks for one
            before it opens: who can write to the folder could put one there in between.

    Raises:
        OSError: it cannot be opened; ELOOP for a link that is not followed.
    """
    if not follow and not NO_LINK and Path(path).is_symlink():
        raise OSError(errno.ELOOP, "a link, which is not followed", str(path))
    return os.open(path, flags | FOR_ALL | _NO_WAIT | (0 if follow else NO_LINK), mode)


def read_at(file: int, out: memoryview, start: int) -> int:
    """Read bytes at a place of a file into a buffer; threads may read of one descriptor at once.

    Args:
        file: the descriptor.
        out: where to; at most so many bytes are read.
        start: the first byte's place.

    Returns:
        How many were read; 0 at the end of the file.
    """
    if hasattr(os, "preadv"):
        return os.preadv(file, [out], start)
    with _one_at_a_time:
        os.lseek(file, start, os.SEEK_SET)
        data = os.read(file, len(out))
    out[: len(data)] = data
    return len(data)


def read_ahead(file: int, start: int, size: int) -> None:
    """Ask the system to read these bytes ahead, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)


def hold(file: int) -> bool:
    """Lock an open file without waiting, until it is closed.

    Returns:
        Whether no other process holds it. True where the system itself keeps open files from being removed.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keep other writers of a file out while the block runs, by a lock file beside it (`NAME.lock`).

    Yields:
        False on a file system without locks (some cluster ones), where nobody is kept out.
    """
    from filelock import FileLock  # noqa: PLC0415 - it takes as long to import as the command line

    lock = FileLock(f"{path}.lock", mode=0o600)
    try:
        lock.acquire()
    except NotImplementedError:
        yield False
        return
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_or_copy(source: str | Path, target: str | Path) -> str:
    """Give a file a second name, or copy it: to another disk, or without hard links. Returns where it is now."""
    try:
        os.link(source, target)
    except (OSError, AttributeError):
        shutil.copy2(source, target)
    return str(target)


def user_id() -> int | None:
    """The number of the user that this process acts as; None where users have none (Windows)."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def is_of_another(status: os.stat_result) -> bool:
    """Whether a file belongs to another user; False where that cannot be told."""
    mine = user_id()
    return mine is not None and status.st_uid != mine


def others_may_write(status: os.stat_result) -> bool:
    """Whether other users may write to a file by its mode; False where modes say nothing (Windows)."""
    return user_id() is not None and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
