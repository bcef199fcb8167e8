"""What the hub answers about repositories: JSON, within limits of bytes, time, redirects and pages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urljoin

import numpy as np

from llmtrap.checkpoint import strict_json
from llmtrap.checkpoint.sources.hub.errors import (
    Repository,
    check_busy,
    check_hub_answer,
    explained,
    is_no_repository,
    transport_faults,
)
from llmtrap.checkpoint.sources.hub.library import answer, http, hub_headers, origin, plain_headers
from llmtrap.checkpoint.sources.hub.location import MAX_REDIRECTS
from llmtrap.checkpoint.sources.hub.retry import TransientError
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError

# The listing of a repository of 100,000 files has some 20 MB.
MAX_BODY = 32 << 20
MAX_PAGE = 8 << 20
MAX_PAGES = 1000
NOT_A_HUB = "Check the address in HF_ENDPOINT"


class NoRepositoryError(Exception):
    """The hub has no model of this name, as far as this account may know."""

    def __init__(self, error: LlmtrapError):
        super().__init__(error.problem)
        self.error = error


class HubApi:
    """Asks one hub about its repositories.

    Args:
        endpoint: the hub's address.
        timeout: seconds without a byte after which a connection is given up.
        deadline: seconds that one answer may take in all.
    """

    def __init__(self, endpoint: str, timeout: float, deadline: float):
        self._endpoint = endpoint
        self._timeout = timeout
        self._deadline = deadline

    def model(self, repository: Repository, revision: str | None) -> dict[str, Any]:
        """What the hub says of a model: its commit and its files.

        Raises:
            NoRepositoryError: there is none.
            TransientError: worth another try.
            LlmtrapError: not worth one.
        """
        at = f"/revision/{quote(revision, safe='')}" if revision is not None else ""
        body, _ = self._body(f"{self._address('models', repository)}{at}?blobs=true", repository, MAX_BODY)
        try:
            return strict_json.read_object(np.frombuffer(body, np.uint8), file=repository.repo_id, what="listing")
        except CheckpointError as error:
            raise not_a_hub(repository) from error

    def refs(self, repository: Repository) -> list[str]:
        """The names of a model's branches and tags.

        Raises:
            NoRepositoryError: there is no such model.
            TransientError: worth another try.
            LlmtrapError: not worth one.
        """
        body, _ = self._body(f"{self._address('models', repository)}/refs", repository, MAX_BODY)
        try:
            kinds = strict_json.read_object(np.frombuffer(body, np.uint8), file=repository.repo_id, what="list of refs")
        except CheckpointError as error:
            raise not_a_hub(repository) from error
        refs = [ref for kind in ("branches", "tags") for ref in kinds.get(kind) or ()]
        names = [ref.get("name") for ref in refs if isinstance(ref, dict)]
        if len(names) != len(refs) or not all(isinstance(name, str) for name in names):
            raise not_a_hub(repository)
        return [str(name) for name in names]

    def tree(self, repository: Repository) -> Iterator[dict[str, Any]]:
        """Every entry of a model's commit, page by page.

        Raises:
            TransientError: worth another try.
            LlmtrapError: not worth one.
        """
        url: str | None = f"{self._address('models', repository)}/tree/{repository.revision}?recursive=true"
        for _ in range(MAX_PAGES):
            if url is None:
                return
            body, following = self._body(url, repository, MAX_PAGE)
            try:
                items = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise not_a_hub(repository) from error
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise not_a_hub(repository)
            yield from items
            try:
                url = None if following is None else urljoin(url, following)
                elsewhere = url is not None and origin(url) != origin(self._endpoint)
            except ValueError as error:  # no address at all
                raise not_a_hub(repository) from error
            if elsewhere:
                problem = "the hub sends to another server for the rest of its listing"
                raise AccessError(problem, file=repository.repo_id, remedy=NOT_A_HUB)
        raise AccessError(f"the listing has over {MAX_PAGES} pages", file=repository.repo_id, remedy=NOT_A_HUB)

    def exists(self, kind: str, repository: Repository) -> bool:
        """Whether there is a repository of this name and kind: `datasets`, `spaces`."""
        with (
            transport_faults("the hub"),
            answer("GET", self._address(kind, repository), _plainly(hub_headers()), self._timeout) as response,
        ):
            check_busy(response, "the hub")
            return response.status_code == 200

    def _address(self, kind: str, repository: Repository) -> str:
        return f"{self._endpoint}/api/{kind}/{repository.repo_id}"

    def _body(self, url: str, repository: Repository, limit: int) -> tuple[bytes, str | None]:
        """The whole body, and where the next page is. A redirect away from the hub is followed without the token."""
        left_hub = False
        for _ in range(MAX_REDIRECTS + 1):
            try:
                left_hub = left_hub or origin(url) != origin(self._endpoint)
                headers = _plainly(plain_headers() if left_hub else hub_headers())
                with transport_faults("the hub"), answer("GET", url, headers, self._timeout) as response:
                    if not response.has_redirect_location:
                        if is_no_repository(response):
                            raise NoRepositoryError(explained(response, repository))
                        check_hub_answer(response, repository)
                        return self._read(response, repository, limit), _next(response)
                    url = self._redirected(url, response.headers["Location"], repository)
            except (http.InvalidURL, http.UnsupportedProtocol, ValueError) as error:
                raise not_a_hub(repository) from error
        raise AccessError(
            f"the hub redirects more than {MAX_REDIRECTS} times", file=repository.repo_id, remedy=NOT_A_HUB
        )

    def _redirected(self, url: str, target: str, repository: Repository) -> str:
        target = urljoin(url, target)
        here, there = origin(url), origin(target)
        if there[0] not in ("http", "https") or (here[0] == "https" and there[0] == "http"):
            problem = "the hub redirects to an address that is not encrypted"
            raise AccessError(problem, file=repository.repo_id, remedy=NOT_A_HUB)
        return target

    def _read(self, response: http.Response, repository: Repository, limit: int) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise AccessError(
                "the hub compresses what it was asked to send plainly", file=repository.repo_id, remedy=NOT_A_HUB
            )
        body, end = bytearray(), time.monotonic() + self._deadline
        for part in response.iter_raw():
            body += part
            if len(body) > limit:
                problem = f"the hub's answer has over {limit >> 20} MiB, more than any listing"
                raise AccessError(problem, file=repository.repo_id, remedy=NOT_A_HUB)
            if time.monotonic() > end:
                raise TransientError("the hub's answer took too long")
        return bytes(body)


def not_a_hub(repository: Repository) -> AccessError:
    """What answers is no hub."""
    return AccessError(
        "what answers at HF_ENDPOINT does not answer like a hub", file=repository.repo_id, remedy=NOT_A_HUB
    )


def _plainly(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "Accept-Encoding": "identity"}


def _next(response: http.Response) -> str | None:
    try:
        return response.links.get("next", {}).get("url")
    except (ValueError, KeyError):
        return None
