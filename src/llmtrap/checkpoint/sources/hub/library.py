"""What is taken from huggingface_hub for plain HTTP: its client, its headers, its endpoint, and its HTTP library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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

__all__ = ["answer", "http", "hub_agent", "hub_headers", "is_offline", "origin", "plain_headers"]

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


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address: what a token may not leave."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


@contextmanager
def answer(method: str, url: str, headers: dict[str, str], timeout: float) -> Iterator[http.Response]:
    """One request by the library's client, with the user's proxies and certificates.

    The body is not read yet, and redirects are not followed.
    """
    limits = http.Timeout(timeout, connect=min(timeout, 10.0), pool=None)
    client = get_session()
    try:
        with client.stream(method, url, headers=headers, timeout=limits, follow_redirects=False) as response:
            yield response
    except RuntimeError:
        if not client.is_closed:
            raise
        # The library closes its client when one of its own requests cannot connect, whoever else is using it.
        raise http.ReadError("the client was closed") from None
