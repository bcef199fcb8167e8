"""What a repository holds at one commit: from the hub in one request, or from the user's cache when offline."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import HFValidationError, validate_repo_id

from llmtrap.checkpoint.names import MAX_NAME, encodable, printable
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.checkpoint.sources.hub.api import NOT_A_HUB, HubApi, NoRepositoryError, not_a_hub
from llmtrap.checkpoint.sources.hub.errors import Repository
from llmtrap.checkpoint.sources.hub.library import http, is_offline
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy, TransientError
from llmtrap.checkpoint.sources.hub.target import HubTarget
from llmtrap.errors import AccessError, CheckpointError, TargetError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_FILES = 100_000


@dataclass(frozen=True)
class _Found:
    """A file as the hub or the cache has it. `content` is its sha256 if it is large, else its git hash."""

    name: str
    size: int | None
    content: str | None

    @classmethod
    def of_sibling(cls, item: dict[str, Any]) -> _Found:
        return cls._of(item, "rfilename", "blobId", "sha256")

    @classmethod
    def of_entry(cls, item: dict[str, Any]) -> _Found:
        return cls._of(item, "path", "oid", "oid")

    @classmethod
    def _of(cls, item: dict[str, Any], name: str, git: str, sha256: str) -> _Found:
        """What the hub sends may be of any type: what is not as it should be counts as not said."""
        large, size = item.get("lfs"), item.get("size")
        content = large.get(sha256) if isinstance(large, dict) else item.get(git)
        return cls(
            name=str(item.get(name, ""))[: MAX_NAME + 1],
            size=size if type(size) is int and 0 <= size < 1 << 63 else None,
            content=content if isinstance(content, str) and _HASH.fullmatch(content) else None,
        )


@dataclass(frozen=True)
class HubListing:
    """A repository pinned to one commit: `repository.revision` is its full hash.

    `files` are sorted by name, each with the hash that the hub calls its content by; `refused` are names that no
    checkpoint has, with the reason.
    """

    repository: Repository
    files: tuple[FileEntry, ...]
    refused: dict[str, str]


def list_repository(target: HubTarget, endpoint: str, patience: RetryPolicy, timeout: float) -> HubListing:
    """List a repository in one request, or from the cache when `HF_HUB_OFFLINE` is set.

    Raises:
        TargetError: there is no such repository or revision, or it is not a model.
        AccessError: it is private, the hub cannot be reached, or it is not in the cache while offline.
    """
    if is_offline():
        return _from_cache(target, endpoint)
    api = HubApi(endpoint, timeout, patience.total)
    asked = Repository(target.repo_id, endpoint, target.revision or "main")
    info = patience.call(lambda: _model_info(api, asked, target.revision), what="listing the repository")
    commit = info.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise CheckpointError("the hub does not say which commit this is", file=target.repo_id, remedy=NOT_A_HUB)
    repository = Repository(_checked_name(info.get("id"), asked), endpoint, commit, asked.revision)
    siblings = info.get("siblings") or []
    if not isinstance(siblings, list) or not all(isinstance(item, dict) for item in siblings):
        raise not_a_hub(asked)
    found = [_Found.of_sibling(item) for item in siblings]
    if not all(_is_told(item) for item in siblings):  # the hub does so for huge repositories
        found = patience.call(lambda: _tree(api, repository), what="listing the repository")
    return _listing(repository, found)


def _is_told(item: dict[str, Any]) -> bool:
    """Whether the listing says at all how large a file is and what it holds."""
    return item.get("size") is not None and bool(item.get("lfs") or item.get("blobId"))


def _model_info(api: HubApi, asked: Repository, revision: str | None) -> dict[str, Any]:
    try:
        return api.model(asked, revision)
    except NoRepositoryError as missing:
        _refuse_if_dataset(api, asked)
        raise missing.error from None


def _refuse_if_dataset(api: HubApi, asked: Repository) -> None:
    """Say so where the name is a dataset's or a space's: a frequent slip that "not found" would hide."""
    for kind in ("dataset", "space"):
        try:
            exists = api.exists(f"{kind}s", asked)
        except (http.HTTPError, http.InvalidURL, ValueError, TransientError):
            return
        if exists:
            problem = f"{asked.repo_id} is a {kind}, and llmtrap audits models"
            raise TargetError(problem, remedy="Give the name of a model repository")


def _checked_name(name: object, asked: Repository) -> str:
    """The repository's present name: it may have moved since it was given the one asked for."""
    if name is None:
        return asked.repo_id
    try:
        if not isinstance(name, str) or name.count("/") != 1:
            raise HFValidationError("not org/name")
        validate_repo_id(name)
    except HFValidationError:
        raise not_a_hub(asked) from None
    return name


def _tree(api: HubApi, repository: Repository) -> list[_Found]:
    found: list[_Found] = []
    try:
        for item in api.tree(repository):
            if item.get("type") != "directory":
                found.append(_Found.of_entry(item))
            _check_count(len(found), repository)
    except NoRepositoryError as missing:
        raise missing.error from None
    return found


def _check_count(files: int, repository: Repository) -> None:
    if files > MAX_FILES:
        problem = f"the hub lists over {MAX_FILES:,} files, more than any checkpoint has"
        raise AccessError(problem, file=repository.repo_id, remedy="Give the repository of one model")


def _listing(repository: Repository, found: list[_Found]) -> HubListing:
    _check_count(len(found), repository)
    entries: dict[str, FileEntry] = {}
    refused: dict[str, str] = {}
    twice = {name for name, times in Counter(file.name for file in found).items() if times > 1}
    for file in found:
        if not _is_plain(file.name):
            refused[printable(file.name)] = "not a plain path inside the repository"
        elif file.name in twice:
            refused[file.name] = "the hub lists it twice"
        elif file.size is None:
            refused[file.name] = "of a size that the hub does not say"
        else:
            content = file.content or ""
            entries[file.name] = FileEntry(file.name, file.size, digest=_digest(content), stamp=content)
    return HubListing(repository, tuple(entries[name] for name in sorted(entries)), refused)


def _digest(content: str) -> str | None:
    return {64: f"sha256:{content}", 40: f"git:{content}"}.get(len(content))


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if len(name) > MAX_NAME or not encodable(name):
        return False
    return name.isprintable() and "\\" not in name and not name.startswith("/") and ".." not in parts and bool(parts)


def _from_cache(target: HubTarget, endpoint: str) -> HubListing:
    """The snapshot that the cache holds of this revision, complete or not."""
    revision = target.revision or "main"
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        repositories = frozenset()
    snapshots = [
        snapshot
        for cached in repositories
        if (cached.repo_type, cached.repo_id) == ("model", target.repo_id)
        for snapshot in cached.revisions
    ]
    snapshot = next((s for s in snapshots if revision in s.refs or revision == s.commit_hash), None)
    if snapshot is None:
        problem = f"offline mode is on, and {target.repo_id} at '{revision}' is not in the cache"
        remedy = f"Unset HF_HUB_OFFLINE, or fetch it where there is a network: hf download {target.repo_id}"
        raise AccessError(problem, remedy=remedy)
    found = [
        _Found(
            file.file_path.relative_to(snapshot.snapshot_path).as_posix(),
            file.size_on_disk,
            Path(file.blob_path).name,
        )
        for file in snapshot.files
    ]
    return _listing(Repository(target.repo_id, endpoint, snapshot.commit_hash), found)
