"""What a repository holds at one commit: from the hub in one request, or from the user's cache when offline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoFile, RepoSibling

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.checkpoint.sources.hub.errors import Repository, check_busy, explained, transport_faults
from llmtrap.checkpoint.sources.hub.library import http, hub_agent, is_offline
from llmtrap.checkpoint.sources.hub.retry import Patience
from llmtrap.checkpoint.sources.hub.target import HubTarget
from llmtrap.errors import AccessError, CheckpointError, TargetError

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class _Found:
    """A file as the hub or the cache has it. `content` is its sha256 if it is large, else its git hash."""

    name: str
    size: int | None
    content: str | None

    @classmethod
    def of(cls, item: RepoSibling | RepoFile) -> _Found:
        return cls(item.rfilename, item.size, item.lfs.sha256 if item.lfs else item.blob_id)


@dataclass(frozen=True)
class HubListing:
    """A repository pinned to one commit: `repository.revision` is its full hash.

    `files` are sorted by name, each with the hash that the hub calls its content by; `refused` are names that no
    checkpoint has, with the reason.
    """

    repository: Repository
    files: tuple[FileEntry, ...]
    refused: dict[str, str]


def list_repository(target: HubTarget, endpoint: str, patience: Patience, timeout: float) -> HubListing:
    """List a repository in one request, or from the cache when `HF_HUB_OFFLINE` is set.

    Raises:
        TargetError: there is no such repository or revision, or it is not a model.
        AccessError: it is private, the hub cannot be reached, or it is not in the cache while offline.
    """
    if is_offline():
        return _from_cache(target, endpoint)
    api = HfApi(endpoint=endpoint, **hub_agent())
    asked = Repository(target.repo_id, endpoint, target.revision or "main")
    info = patience.call(lambda: _model_info(api, asked, target.revision, timeout), what="listing the repository")
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError("the hub does not say which commit this is", file=target.repo_id, remedy=_NOT_A_HUB)
    repository = Repository(info.id or target.repo_id, endpoint, commit, asked.revision)
    found = [_Found.of(item) for item in info.siblings or []]
    if any(file.size is None or file.content is None for file in found):  # the hub does so for huge repositories
        tree = patience.call(lambda: _tree(api, repository), what="listing the repository")
        found = [_Found.of(item) for item in tree]
    return _listing(repository, found)


_NOT_AN_ANSWER = (ValueError, KeyError, TypeError, AttributeError)  # what parsing something else as an answer raises
_NOT_A_HUB = "Check the address in HF_ENDPOINT"


def _model_info(api: HfApi, asked: Repository, revision: str | None, timeout: float) -> ModelInfo:
    try:
        with transport_faults("the hub"):
            return api.model_info(asked.repo_id, revision=revision, files_metadata=True, timeout=timeout)
    except RepositoryNotFoundError as error:
        _refuse_if_dataset(api, asked)
        raise explained(error, asked) from None
    except HfHubHTTPError as error:
        check_busy(error.response, "the hub")
        raise explained(error, asked) from None
    except (http.InvalidURL, http.UnsupportedProtocol, http.TooManyRedirects, *_NOT_AN_ANSWER):
        problem = "what answers at HF_ENDPOINT does not answer like a hub"
        raise AccessError(problem, file=asked.repo_id, remedy=_NOT_A_HUB) from None


def _refuse_if_dataset(api: HfApi, asked: Repository) -> None:
    """Say so where the name is a dataset's or a space's: a frequent slip that "not found" would hide."""
    for kind in ("dataset", "space"):
        try:
            exists = api.repo_exists(asked.repo_id, repo_type=kind)
        except (http.HTTPError, ValueError, OSError):
            return
        if exists:
            problem = f"{asked.repo_id} is a {kind}, and llmtrap audits models"
            raise TargetError(problem, remedy="Give the name of a model repository")


def _tree(api: HfApi, repository: Repository) -> list[RepoFile]:
    try:
        with transport_faults("the hub"):
            items = list(api.list_repo_tree(repository.repo_id, recursive=True, revision=repository.revision))
    except HfHubHTTPError as error:
        check_busy(error.response, "the hub")
        raise explained(error, repository) from None
    return [item for item in items if isinstance(item, RepoFile)]


def _listing(repository: Repository, found: list[_Found]) -> HubListing:
    entries, refused = {}, {}
    for file in found:
        if not _is_plain(file.name):
            refused[printable(file.name)] = "not a plain path inside the repository"
        elif type(file.size) is not int or file.size < 0:
            refused[file.name] = "the hub does not say how large it is"
        else:
            content = file.content or ""
            entries[file.name] = FileEntry(file.name, file.size, digest=_digest(content), stamp=content)
    return HubListing(repository, tuple(entries[name] for name in sorted(entries)), refused)


def _digest(content: str) -> str | None:
    return {64: f"sha256:{content}", 40: f"git:{content}"}.get(len(content))


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
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
