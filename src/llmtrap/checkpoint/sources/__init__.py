"""Where the bytes are: a folder, one file, or a hub repository read by ranges, all behind one protocol."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity
from llmtrap.checkpoint.sources.local import LocalSource
from llmtrap.errors import TargetError

__all__ = [
    "ByteRange",
    "Bytes",
    "FileEntry",
    "LocalSource",
    "Source",
    "SourceIdentity",
    "open_hub_source",
    "open_source",
]

_HUB_NAME = re.compile(
    r"(hf|https?)://.+|(www\.)?(huggingface\.co|hf\.co)/.+|(models|datasets|spaces)/[\w.-]+/[\w.-]+(@.+)?"
    r"|(?!\.{1,2}/)[\w.-]+/[\w.-]+(@.+)?"
)


def open_source(target: str, *, revision: str | None = None, download: bool = False) -> Source:
    """Open a target by name: a path that exists wins over a hub repository `org/name[@revision]`.

    Args:
        target: a folder, one weights file, or a hub repository.
        revision: the hub revision, where the target does not name one itself.
        download: keep a hub repository's files in the hub's cache instead of streaming them.

    Raises:
        TargetError: the target is neither a path that exists nor the name of a repository.
        AccessError: the repository needs a token or a licence, or the network is away.
    """
    if target and _exists(Path(target)):
        return LocalSource(target)
    return open_hub_source(target, revision=revision, download=download)


def open_hub_source(target: str, *, revision: str | None = None, download: bool = False) -> Source:
    """Open a hub repository by name, whatever paths there are.

    Raises:
        TargetError: the name is no repository's, or there is no such repository.
        AccessError: the repository needs a token or a licence, or the network is away.
    """
    if not _HUB_NAME.fullmatch(target):
        remedy = "Give a folder, a .safetensors file, or a hub repository as org/name or org/name@revision"
        raise TargetError("no such file or folder", file=target, remedy=remedy)
    from llmtrap.checkpoint.sources.hub import HubSource  # noqa: PLC0415  (the hub's client is slow to import)

    return HubSource.from_target(target, revision=revision, download=download)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long for the file system is no path; a folder that is closed to us is
        if error.errno == errno.ENAMETOOLONG:
            return False
        problem = f"cannot be looked up ({error.strerror})"
        raise TargetError(problem, file=str(path), remedy="Check its permissions") from error
