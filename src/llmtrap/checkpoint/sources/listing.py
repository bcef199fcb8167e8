"""Which files a local target has, and which of its entries are never opened: links that lead out, FIFOs, devices."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from llmtrap.checkpoint.names import encodable, printable
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.errors import TargetError

MAX_ENTRIES = 200_000
MAX_DEPTH = 16


@dataclass(frozen=True)
class Listing:
    """The files of a target by name, where each lies, and the entries that are refused with their reasons."""

    entries: dict[str, FileEntry]
    paths: dict[str, str]
    refused: dict[str, str]

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The files, sorted by name."""
        return tuple(self.entries.values())


def list_folder(root: Path) -> Listing:
    """List a folder and its subfolders.

    Args:
        root: the folder, with all links in its own path resolved.

    Raises:
        TargetError: the folder cannot be read, or has more entries than any checkpoint.
    """
    entries: dict[str, FileEntry] = {}
    paths: dict[str, str] = {}
    refused: dict[str, str] = {}
    pending = [(root, "", 0)]
    seen = 0
    while pending:
        folder, prefix, depth = pending.pop()
        try:
            found = list(os.scandir(folder))
        except OSError as error:
            if folder == root:
                problem = f"the folder cannot be read ({error.strerror})"
                raise TargetError(problem, file=str(root), remedy="Check its permissions") from error
            refused[prefix.rstrip("/")] = f"the folder cannot be read ({error.strerror})"
            continue
        seen += len(found)
        if seen > MAX_ENTRIES:
            problem = f"over {MAX_ENTRIES} files"
            raise TargetError(problem, file=str(root), remedy="Give the folder of one checkpoint")
        for item in found:
            name = prefix + item.name
            if item.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH:
                    pending.append((Path(item.path), name + "/", depth + 1))
                else:
                    refused[name] = f"folders nested over {MAX_DEPTH} deep are not searched"
                continue
            reason = _refusal(root, Path(item.path)) if encodable(name) else "a name that is not valid UTF-8"
            if reason:
                refused[name] = reason
                continue
            entries[name] = _entry(name, Path(item.path).stat())
            paths[name] = item.path
    return Listing(dict(sorted(entries.items())), paths, dict(sorted(refused.items())))


def list_file(path: Path) -> Listing:
    """List one file, and the `config.json` beside it, which says how to name its tensors."""
    entries = {path.name: _entry(path.name, path.stat())}
    paths = {path.name: str(path.resolve())}
    config = path.with_name("config.json")
    if config.name not in entries and config.exists() and _refusal(path.parent.resolve(), config) is None:
        entries[config.name] = _entry(config.name, config.stat())
        paths[config.name] = str(config.resolve())
    return Listing(entries, paths, {})


def _entry(name: str, status: os.stat_result) -> FileEntry:
    return FileEntry(name=name, size=status.st_size, stamp=stamp_of(status))


def stamp_of(status: os.stat_result) -> str:
    """What tells a changed file from the same one at no cost.

    The modification time alone can be set back, and tools that copy do: the time of change and the inode cannot.
    """
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}-{status.st_nlink}"


def is_unchanged(stamp: str, status: os.stat_result) -> bool:
    """Whether a file that is being read is still the one that had this stamp.

    A name that it got or lost meanwhile (a hard link, a rename over it) changes the time of change and no content:
    then the other facts decide. Between two audits there is no such leave, and the whole stamp is compared.
    """
    if stamp == stamp_of(status):
        return True
    size, modified, _, inode, names = stamp.split("-")
    same = (status.st_size, status.st_mtime_ns, status.st_ino) == (int(size), int(modified), int(inode))
    return same and status.st_nlink != int(names)


def _refusal(root: Path, path: Path) -> str | None:
    """Why an entry that is no folder is not opened, or None."""
    try:
        resolved = path.resolve(strict=True)
        mode = resolved.stat().st_mode
    except (OSError, RuntimeError):
        return "a broken link"
    if not resolved.is_relative_to(root) and not _in_hub_cache(root, resolved):
        return f"a link that leads out of the checkpoint's folder, to {printable(str(resolved))}"
    if stat.S_ISDIR(mode):
        return "a link to a folder"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return None


def _in_hub_cache(root: Path, resolved: Path) -> bool:
    """Whether the link is the hub cache's own: `REPO/snapshots/REVISION/…/… -> REPO/blobs/…`, from any depth."""
    return any(
        revision.parent.name == "snapshots" and resolved.parent == revision.parent.parent / "blobs"
        for revision in (root, *root.parents)
    )
