"""What is taken from huggingface_hub for plain HTTP: its client, its headers, its endpoint, and its HTTP library."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session

from llmtrap.version import __version__

if TYPE_CHECKING:
    import httpx2 as http
else:

    def _http_library() -> ModuleType:
        """huggingface_hub 1.x is built on httpx and 2.x on httpx2: the one whose errors its own errors extend."""
        base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
        return sys.modules[base.__module__.partition(".")[0]]

    http = _http_library()

__all__ = ["answer", "host_of", "http", "hub_agent", "hub_headers", "is_offline", "number", "origin", "plain_headers"]

if hasattr(os, "register_at_fork"):  # connections opened before a fork are the parent's; not every 1.x release knows
    os.register_at_fork(after_in_child=huggingface_hub.close_session)


def hub_agent() -> dict[str, Any]:
    """Who asks, as the library's calls take it."""
    return {"library_name": "llmtrap", "library_version": __version__}


def hub_headers() -> dict[str, str]:
    """Headers for a request to the hub: who asks, and the user's token where there is one, read anew each time."""
    return build_hf_headers(**hub_agent())


@cache
def plain_headers() -> dict[str, str]:
    """Headers for a request to anyone else: who asks, and no token."""
    return build_hf_headers(token=False, **hub_agent())


def is_offline() -> bool:
    """Whether the user asked the library to stay off the network (`HF_HUB_OFFLINE`)."""
    return bool(constants.HF_HUB_OFFLINE)


def host_of(url: str) -> str:
    """Host and port of an address, without the password that it may hold."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the hub"
    except ValueError:
        return "the hub"


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address: what a token may not leave."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


# The head of an answer may take so many timeouts in all: a server that drips its headers sends each byte in time.
_HEAD_TIMEOUTS = 3


@contextmanager
def answer(method: str, url: str, headers: dict[str, str], timeout: float) -> Iterator[http.Response]:
    """One request by the library's client, with the user's proxies and certificates.

    The body is not read yet, and redirects are not followed.

    Args:
        method: GET or HEAD.
        url: the address.
        headers: the request's headers.
        timeout: seconds without a byte after which it fails; the whole head must be there after three times as long.
    """
    limits = http.Timeout(timeout, connect=min(timeout, 10.0), pool=None)
    client = get_session()
    request = client.build_request(method, url, headers=headers, timeout=limits)
    try:
        response = _within(_HEAD_TIMEOUTS * timeout, lambda: client.send(request, stream=True, follow_redirects=False))
        try:
            yield response
        finally:
            response.close()
    except RuntimeError:
        if not client.is_closed:
            raise
        # The library closes its client when one of its own requests cannot connect, whoever else is using it.
        raise http.ReadError("the client was closed") from None


def number(text: str | None) -> int | None:
    """A count out of a header; None where it is none, or longer than any size has digits."""
    return int(text) if text and len(text) <= 19 and text.isascii() and text.isdecimal() else None


def _within(seconds: float, send: Callable[[], http.Response]) -> http.Response:
    """What `send` returns, waited for no longer than so many seconds; one that comes later is closed.

    A thread of its own, since neither the resolver of names nor the reading of headers has a deadline that covers all.
    """
    done: queue.SimpleQueue[http.Response | BaseException] = queue.SimpleQueue()
    lock, abandoned = threading.Lock(), False

    def run() -> None:
        try:
            result: http.Response | BaseException = send()
        except BaseException as error:  # handed to the caller
            result = error
        with lock:
            if not abandoned:
                done.put(result)
                return
        if isinstance(result, http.Response):
            result.close()

    threading.Thread(target=run, name="llmtrap-hub-request", daemon=True).start()
    try:
        result = done.get(timeout=seconds)
    except queue.Empty:
        with lock:
            abandoned = True
        result = done.get_nowait() if not done.empty() else http.ReadTimeout("no whole answer in time")
    if isinstance(result, ValueError) and not isinstance(result, http.InvalidURL):
        raise http.RemoteProtocolError("an answer that is not HTTP") from None
    if isinstance(result, BaseException):
        raise result
    return result
