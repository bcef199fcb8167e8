"""Write a face of a report so that the file is either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from llmtrap.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it, synced and then renamed over it.

    Missing folders are made. A link is followed, and what is no file (a pipe, `/dev/stdout`) is written to directly.

    Args:
        path: where to; an existing file is replaced.
        content: all of it.

    Raises:
        OutputError: the disk is full, the folder cannot be written, or the path is a folder.
    """
    part: Path | None = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        place = path.resolve()
        if place.is_symlink():  # from Python 3.13 on nothing is raised for links that go in a circle
            raise RuntimeError
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name[:50]}.{secrets.token_hex(4)}.part")
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go in a circle
        raise _explain(error, path) from error
    finally:
        # Also when interrupted; once renamed it is not there
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()


def _explain(error: OSError | RuntimeError, path: Path) -> OutputError:
    file = str(path)
    if isinstance(error, RuntimeError):
        return OutputError("this link leads nowhere", file=file, remedy="Name another place.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError("the disk is full", file=file, remedy="Free some space, or write to another place.")
    if isinstance(error, PermissionError):
        return OutputError("no permission to write here", file=file, remedy="Name a folder that you may write to.")
    if isinstance(error, IsADirectoryError):
        return OutputError("this is a folder", file=file, remedy="Name a file in it.")
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return OutputError("a part of this path is a file, not a folder", file=file, remedy="Name another place.")
    return OutputError(f"cannot be written ({error.strerror or error})", file=file, remedy="Name another place.")
