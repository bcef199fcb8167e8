"""The revisions of a repository that have names: branches and tags, as runs publish their steps."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase

from huggingface_hub import CacheNotFound, constants, scan_cache_dir

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.hub.api import HubApi, NoRepositoryError
from llmtrap.checkpoint.sources.hub.errors import Repository
from llmtrap.checkpoint.sources.hub.library import host_of, is_offline
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy
from llmtrap.checkpoint.sources.hub.source import HubOptions
from llmtrap.checkpoint.sources.hub.target import hub_endpoint, parse_target
from llmtrap.errors import TargetError


def revisions_like(target: str, glob: str, options: HubOptions | None = None) -> list[str]:
    """The branches and tags of a repository that match a pattern, by name; offline those in the cache.

    Args:
        target: the repository, as people name it.
        glob: a pattern such as `step*`.
        options: how the hub is asked.

    Raises:
        TargetError: there is no such repository, or nothing in it matches.
        AccessError: the hub cannot be reached, or refuses.
    """
    repo_id, endpoint = parse_target(target).repo_id, hub_endpoint()
    if is_offline():
        names = _cached(repo_id)
    else:
        chosen = options or HubOptions.from_environment()
        patience = RetryPolicy(chosen.patience, threading.Event(), host=host_of(endpoint))
        api = HubApi(endpoint, chosen.timeout, patience.total)
        try:
            names = patience.call(lambda: api.refs(Repository(repo_id, endpoint, "main")), what="listing the revisions")
        except NoRepositoryError as missing:
            raise missing.error from None
    found = sorted({name for name in names if fnmatchcase(name, glob)})
    if not found:
        some = ", ".join(printable(name, 60) for name in sorted(names)[:5])
        there = (
            f"There are {len(names)}: {some}{', …' if len(names) > 5 else ''}" if names else "It has none with a name"
        )
        raise TargetError(f"no branch or tag of {repo_id} matches '{glob}'", file=target, remedy=there)
    return found


def _cached(repo_id: str) -> list[str]:
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    mine = [repo for repo in repositories if (repo.repo_type, repo.repo_id) == ("model", repo_id)]
    return [ref for repo in mine for revision in repo.revisions for ref in revision.refs]
