"""Where the bytes are: a folder, one file, a hub repository or an object store, all behind one protocol."""

from __future__ import annotations

import errno
import posixpath
import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from llmtrap.checkpoint.file_sets import is_shard
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity
from llmtrap.checkpoint.sources.local import LocalSource
from llmtrap.checkpoint.sources.subfolder import SubfolderSource
from llmtrap.errors import TargetError, UsageError

__all__ = [
    "ByteRange",
    "Bytes",
    "FileEntry",
    "LocalSource",
    "Source",
    "SourceIdentity",
    "is_url",
    "open_hub_source",
    "open_remote_source",
    "open_source",
]

_HUB_NAME = re.compile(
    r"(hf|https?)://.+|(www\.)?(huggingface\.co|hf\.co)/.+|(models|datasets|spaces)/[\w.-]+/[\w.-]+(@.+)?"
    r"|(?!\.{1,2}/)[\w.-]+(/[\w.-]+)+(@.+)?"
)
_WEB_NAME = re.compile(r"(hf|https?)://.+|(www\.)?(huggingface\.co|hf\.co)/.+")
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://")
_FIRST_CONTACT = 20.0
"""Seconds that the hub may be away for a bare name, which may be a mistyped path; nothing is measured yet then."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def open_source(
    target: str, *, revision: str | None = None, download: bool = False, subfolder: str | None = None
) -> Source:
    """Open a target by name: a path that exists wins over a hub repository `org/name[/folder][@revision]`.

    Args:
        target: a folder, one weights file, a hub repository, or a URL such as s3://BUCKET/FOLDER.
        revision: the hub revision, where the target does not name one itself.
        download: keep a hub repository's files in the hub's cache instead of streaming them.
        subfolder: the folder within the target to take for the whole.

    Raises:
        TargetError: the target is neither a path that exists nor the name of a repository.
        AccessError: the repository needs a token or a licence, or the network is away.
    """
    folder = _checked(subfolder)
    if target.startswith("file://"):
        target = unquote(target.removeprefix("file://"))
    if is_url(target):
        return open_remote_source(target, subfolder=folder)
    if target and _exists(Path(target)):
        return LocalSource(Path(target) / folder if folder else target)
    if _WEB_NAME.fullmatch(target):
        return open_hub_source(target, revision=revision, download=download, subfolder=folder)
    _refuse_nearly_a_path(target)
    try:
        return open_hub_source(target, revision=revision, download=download, subfolder=folder, patience=_FIRST_CONTACT)
    except TargetError as error:
        if error.problem.startswith(("no such file", "the repository", "there is no folder")):
            raise
        problem = f"no such file or folder here; and of a hub repository of that name: {error.problem}"
        raise type(error)(problem, file=error.file or target, remedy=error.remedy) from None


def is_url(target: str) -> bool:
    """Whether the target is a URL for fsspec: any but a hub's and a local file's."""
    return _URL.match(target) is not None and not _WEB_NAME.fullmatch(target) and not target.startswith("file:")


def open_remote_source(target: str, *, subfolder: str = "") -> Source:
    """Open a URL for fsspec: s3://, gs://, az:// or another, a folder or one weight file.

    Raises:
        MissingExtraError: the driver is not installed.
        TargetError: there is nothing at the URL, or no such protocol.
        AccessError: the store refuses, or cannot be reached.
    """
    from llmtrap.checkpoint.sources.remote import RemoteSource  # noqa: PLC0415  (drivers are slow to import)

    source = RemoteSource.from_url(posixpath.join(target, subfolder) if subfolder else target)
    file = target.rstrip("/").rpartition("/")[2]
    alone = not subfolder and file.endswith(_WEIGHTS) and any(entry.name == file for entry in source.files())
    return SubfolderSource(source, "", file) if alone else source


def open_hub_source(
    target: str,
    *,
    revision: str | None = None,
    download: bool = False,
    subfolder: str = "",
    patience: float | None = None,
) -> Source:
    """Open a hub repository by name, or a folder or file of one, whatever local paths there are.

    Args:
        target: the repository.
        revision: its revision, where the target does not name one itself.
        download: keep its files in the hub's cache instead of streaming them.
        subfolder: the folder within it to take for the whole.
        patience: seconds that the listing may fail, where that is less than what is usual.

    Raises:
        TargetError: the name is no repository's, or there is no such repository, or nothing of that name in it.
        AccessError: the repository needs a token or a licence, or the network is away.
    """
    if not _HUB_NAME.fullmatch(target):
        remedy = "Give a folder, a weights file, or a hub repository as org/name, org/name@revision or org/name/folder"
        raise TargetError("no such file or folder", file=target, remedy=remedy)
    # The hub's client is slow to import.
    from llmtrap.checkpoint.sources.hub import HubSource, parse_target  # noqa: PLC0415

    source = HubSource.from_target(target, revision=revision, download=download, first_contact=patience)
    path = posixpath.join(parse_target(target).path, subfolder).rstrip("/")
    if not path:
        return source
    if not any(file.name == path for file in source.files()):
        return SubfolderSource(source, path)
    # A page of one file: that file, unless it is one of several shards or a configuration.
    folder, _, file = path.rpartition("/")
    alone = file.endswith(_WEIGHTS) and not is_shard(file)
    return SubfolderSource(source, folder, file if alone else None) if folder or alone else source


def _checked(subfolder: str | None) -> str:
    """The subfolder as a plain path."""
    if not subfolder:
        return ""
    folder = posixpath.normpath(subfolder.replace("\\", "/"))
    if folder.startswith(("/", "..")):
        raise UsageError(f"--subfolder {subfolder}: no folder within the target", remedy="Give a path such as unet")
    return "" if folder == "." else folder


def _refuse_nearly_a_path(target: str) -> None:
    """Refuse a name that is nearly a path here: no hub need be asked.

    Raises:
        TargetError: the first part is a folder, and the rest nearly the name of something in it.
    """
    first, *rest = Path(target).parts or ("",)
    known = Path(first)
    if not _HUB_NAME.fullmatch(target) or not _exists(known) or not known.is_dir():
        return
    for part in rest:
        if not _exists(known / part):
            break
        known /= part
    try:
        there = [item.name for item in known.iterdir()] if known.is_dir() else [known.name]
    except OSError:
        there = []
    near = get_close_matches(rest[len(known.parts) - 1] if known.is_dir() else known.name, there, n=1, cutoff=0.7)
    if near:
        meant = known / near[0] if known.is_dir() else known
        remedy = f"Did you mean {meant}? For the hub's repository of that name give hf://{target}"
        raise TargetError("no such file or folder", file=target, remedy=remedy)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long for the file system is no path; a folder that is closed to us is
        if error.errno == errno.ENAMETOOLONG:
            return False
        problem = f"cannot be looked up ({error.strerror})"
        raise TargetError(problem, file=str(path), remedy="Check its permissions") from error
