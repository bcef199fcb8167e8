"""Where a file's bytes are served: the hub itself, or a signed address elsewhere that the token must not follow."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from huggingface_hub import hf_hub_url

from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.checkpoint.sources.hub.errors import Repository, check_hub_answer, transport_faults
from llmtrap.checkpoint.sources.hub.library import answer, hub_headers, number, origin
from llmtrap.checkpoint.sources.hub.retry import TransientError
from llmtrap.errors import AccessError, CheckpointError

MAX_REDIRECTS = 5
MAX_REFUSED_LINKS = 3

CHANGED = "Start the audit again: it lists the files anew, and measures again only what changed"

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(eq=False)
class Location:
    """Where a file's bytes are served. Its address may be signed: it is never shown and never logged.

    `vouched` tells that the hub said, with this address, that the content is what was listed; `etag` is what the
    server there calls it, once it has said so.
    """

    url: str = field(repr=False)
    at_hub: bool
    vouched: bool = False
    etag: str | None = None

    @property
    def host(self) -> str:
        """The part of the address that may be shown."""
        return "the hub" if self.at_hub else (urlsplit(self.url).hostname or "the file server")


@dataclass
class _Place:
    lock: threading.Lock = field(default_factory=threading.Lock)
    location: Location | None = None
    refusals: int = 0
    given_up: AccessError | CheckpointError | None = None


class Locator:
    """Finds each file once, for all threads, and again when a signed address has expired.

    Args:
        repository: the repository at one commit: `repository.revision` is the full hash.
        files: what the listing says of each file.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, repository: Repository, files: Mapping[str, FileEntry], timeout: float):
        self._repository = repository
        self._files = files
        self._timeout = timeout
        self._places = {name: _Place() for name in files}
        self.requests = 0

    def find(self, file: str) -> Location:
        """Return where the file is served, asking the hub if nobody has yet.

        Raises:
            TransientError: the hub did not answer.
            AccessError: it refuses, or the file was given up before.
            CheckpointError: it no longer has the file that was listed, or sends from pillar to post.
        """
        place = self._places[file]
        with place.lock:
            # Threads that come late share the verdict: each asking once more would be a burst of useless requests.
            if place.given_up is not None:
                raise place.given_up
            if place.location is None:
                place.location = self._ask(file)
            return place.location

    def moved(self, file: str, old: Location, url: str) -> None:
        """Note that `old` now points to `url`. A way that once led away from the hub carries no token back to it."""
        target = self._checked(file, old.url, url)
        target.at_hub = target.at_hub and old.at_hub
        target.vouched = old.vouched
        place = self._places[file]
        with place.lock:
            if place.location is old:
                place.location = target

    def refused(self, file: str, location: Location, status: int) -> TransientError:
        """Forget a location whose server refuses; the fault to raise, so that the file is looked up again.

        Raises:
            AccessError: fresh addresses are refused as well.
        """
        place = self._places[file]
        with place.lock:
            if self._forget(file, location) > MAX_REFUSED_LINKS:
                problem = f"{location.host} answered {status}, to fresh links too"
                remedy = "A proxy or a wrong clock may be in the way; the same command carries on later"
                place.given_up = AccessError(problem, file=file, remedy=remedy)
                raise place.given_up
        return TransientError(f"the link to {location.host} is no longer accepted ({status})", retry_after=0.0)

    def contradicted(self, file: str, location: Location) -> TransientError:
        """Forget a location whose server changed its mind on the etag; the fault to raise, so that the hub is asked.

        Replicas behind one address may differ in their etags; only the hub can tell that from a file that changed.

        Raises:
            CheckpointError: the hub does not vouch for contents, or has done so in vain.
        """
        place = self._places[file]
        with place.lock:
            if not location.vouched or self._forget(file, location) > MAX_REFUSED_LINKS:
                place.given_up = CheckpointError("the file changed while it was read", file=file, remedy=CHANGED)
                raise place.given_up
        return TransientError(f"{location.host} names the file otherwise than before", retry_after=0.0)

    def served(self, file: str) -> None:
        """Note that the current location works."""
        self._places[file].refusals = 0

    def _forget(self, file: str, location: Location) -> int:
        """Drop a location, unless another thread already did; how many were dropped since the last that worked."""
        place = self._places[file]
        if place.location is location:
            place.location = None
            place.refusals += 1
        return place.refusals

    def _ask(self, file: str) -> Location:
        """Follow the hub's own redirects by HEAD requests, up to the first that leads away from it."""
        repository = self._repository
        url = hf_hub_url(repository.repo_id, file, revision=repository.revision, endpoint=repository.endpoint)
        for _ in range(MAX_REDIRECTS):
            headers = {**hub_headers(), "Accept-Encoding": "identity"}
            self.requests += 1
            with transport_faults("the hub"), answer("HEAD", url, headers, self._timeout) as response:
                check_hub_answer(response, repository, file)
                vouched = self._check_unchanged(file, response.headers)
                if not response.has_redirect_location:
                    return Location(url, at_hub=True, vouched=vouched)
                location = self._checked(file, url, response.headers["Location"])
                location.vouched = vouched
            if not location.at_hub:
                return location
            url = location.url
        raise CheckpointError(f"the hub redirects more than {MAX_REDIRECTS} times", file=file, remedy="Try again later")

    def _checked(self, file: str, url: str, target: str) -> Location:
        """The redirect's target, unless it leaves the web or gives up encryption."""
        try:
            target = urljoin(url, target)
            here, there = origin(url), origin(target)
        except ValueError as error:
            problem = "the hub redirects to what is no address"
            raise AccessError(problem, file=file, remedy="Check the address in HF_ENDPOINT") from error
        if there[0] not in ("http", "https") or (here[0] == "https" and there[0] == "http"):
            problem = "the hub redirects to an address that is not encrypted"
            remedy = "Check the network and HF_ENDPOINT: something may be listening in"
            raise AccessError(problem, file=file, remedy=remedy)
        return Location(target, at_hub=there == origin(self._repository.endpoint))

    def _check_unchanged(self, file: str, headers: Mapping[str, str]) -> bool:
        """Hold what the hub says now against the listing: commit, content hash and size; whether the hash agrees."""
        entry = self._files[file]
        commit = headers.get("X-Repo-Commit")
        etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
        size = number(headers.get("X-Linked-Size"))
        # Mirrors put etags of their own on small files: only a hash of the listed kind can contradict it.
        kind_matches = _HASH.fullmatch(etag) and len(etag) == len(entry.stamp)
        if (
            (commit and commit != self._repository.revision)
            or (kind_matches and etag != entry.stamp)
            or (size is not None and size != entry.size)
        ):
            raise CheckpointError("the file changed since it was listed", file=file, remedy=CHANGED)
        return bool(kind_matches)
