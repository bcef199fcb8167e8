"""A folder held open, so that what is done in it is done there and nowhere a link leads meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from llmtrap.systems.files import FOR_ALL, NO_LINK, open_file


class Folder(Protocol):
    """What can be done in a folder. Every name is one part of a path."""

    moves_open_files: bool
    """Whether a file may be renamed while it is open."""

    def inner(self, name: str) -> Folder:
        """A folder in this one, made where there is none; a link is refused."""

    def mode(self, name: str) -> int | None:
        """The mode of what has this name, links not followed; None where there is nothing."""

    def names(self) -> list[str]:
        """What is in it."""

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file in it; a link is refused."""

    def replace(self, name: str, new: str) -> None:
        """Rename a file over another."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def close(self) -> None:
        """Let it go."""


def open_folder(path: Path) -> Folder:
    """Hold a folder; links in its path are followed.

    Raises:
        OSError: there is none, or it may not be read.
    """
    if {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd:
        return _HeldFolder(os.open(path, _FOLDER))
    return _NamedFolder(path.resolve(strict=True))


_FOLDER = os.O_RDONLY | FOR_ALL | getattr(os, "O_DIRECTORY", 0)


class _HeldFolder:
    """By a descriptor: nothing that happens to its path changes where it is."""

    moves_open_files = True

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def inner(self, name: str) -> _HeldFolder:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._descriptor)
        return _HeldFolder(os.open(name, _FOLDER | NO_LINK, dir_fd=self._descriptor))

    def mode(self, name: str) -> int | None:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        return os.listdir(self._descriptor)  # noqa: PTH208 - a descriptor

    def open(self, name: str, flags: int) -> int:
        return os.open(name, flags | FOR_ALL | NO_LINK | os.O_NONBLOCK, 0o666, dir_fd=self._descriptor)

    def replace(self, name: str, new: str) -> None:
        os.replace(name, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class _NamedFolder:
    """By its path, on systems that hold no folder open: links are looked for before each step.

    Who can write to the folder meanwhile could put one there in between.
    """

    moves_open_files = False

    def __init__(self, path: Path):
        self._path = path

    def inner(self, name: str) -> _NamedFolder:
        place = self._path / name
        place.mkdir(exist_ok=True)
        if place.is_symlink() or (hasattr(place, "is_junction") and place.is_junction()):
            raise OSError(errno.ELOOP, "a link", str(place))
        return _NamedFolder(place)

    def mode(self, name: str) -> int | None:
        try:
            return (self._path / name).lstat().st_mode
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        return [path.name for path in self._path.iterdir()]

    def open(self, name: str, flags: int) -> int:
        return open_file(self._path / name, flags, follow=False)

    def replace(self, name: str, new: str) -> None:
        (self._path / name).replace(self._path / new)

    def remove(self, name: str) -> None:
        (self._path / name).unlink()

    def close(self) -> None:
        """There is nothing to let go."""


def refuse_what_is_no_file(folder: Folder, name: str) -> None:
    """Refuse to replace anything but a regular file.

    Raises:
        OSError: ELOOP for a link, EISDIR for a folder, ENXIO for anything else.
    """
    mode = folder.mode(name)
    if mode is None or stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a link")
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    raise OSError(errno.ENXIO, "not a regular file")
