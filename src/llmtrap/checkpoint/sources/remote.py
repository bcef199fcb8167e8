"""Checkpoints in object stores and on servers, by URL: s3://, gs://, az:// and whatever else fsspec has a driver for.

Streamed by ranges, ahead of the computation and with the hub's retries; nothing is kept on disk. Keys come from where
the driver takes them (environment, configuration, the machine's role) and are never held here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from llmtrap.checkpoint.names import encodable, printable
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity
from llmtrap.checkpoint.sources.hub import HubOptions
from llmtrap.checkpoint.sources.hub.location import CHANGED
from llmtrap.checkpoint.sources.hub.prefetch import Prefetcher
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy, TransientError
from llmtrap.checkpoint.sources.listing import MAX_ENTRIES
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError, MissingExtraError, TargetError

# What tells one version of an object from another, as the drivers call it; the first is the strongest.
_MARKS = ("etag", "md5hash", "content_md5", "generation", "version_id", "crc32c", "lastmodified", "last_modified",
          "mtime", "updated", "created")  # fmt: skip
_ACCESS = "Log in as the driver wants it (for S3: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


@dataclass(frozen=True)
class RemoteListing:
    """A folder of a store: where its files lie there, what each is, and what marks its present version."""

    url: str
    root: str
    files: dict[str, FileEntry]
    marks: dict[str, dict[str, str]]
    refused: dict[str, str]


class RemoteSource:
    """The files below one URL. Picklable: a copy lists nothing again and fetches for itself.

    Args:
        listing: the files.
        options: how they are read; default from the environment, as for a hub.
    """

    def __init__(self, listing: RemoteListing, options: HubOptions | None = None):
        self._listing = listing
        self._options = options or HubOptions.from_environment()
        self._start()

    @classmethod
    def from_url(cls, url: str, *, options: HubOptions | None = None) -> RemoteSource:
        """List what lies below a URL.

        Raises:
            MissingExtraError: the driver is not installed.
            TargetError: there is nothing at that URL, or no such protocol.
            AccessError: the store refuses, or cannot be reached for longer than patience lasts.
        """
        options = options or HubOptions.from_environment()
        patience = RetryPolicy(options.patience, threading.Event())
        return cls(patience.call(lambda: _list(url), what=f"listing {_shown(url)}"), options)

    def _start(self) -> None:
        """Everything that a copy in another process must have of its own."""
        options = self._options
        self._process = os.getpid()
        self._closing = threading.Event()
        self._patience = RetryPolicy(options.patience, self._closing)
        self._ahead = Prefetcher(
            self._fetch, budget=options.budget, keep=options.keep, piece=options.piece, threads=options.threads
        )
        self._driver: Any = None
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"listing": self._listing, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["listing"], state["options"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"RemoteSource({_shown(self._listing.url)!r})"

    @property
    def identity(self) -> SourceIdentity:
        """The URL, without a password in it."""
        return SourceIdentity(_shown(self._listing.url), "remote")

    @property
    def refused(self) -> dict[str, str]:
        """Files that the store lists and that will not be read, with the reason."""
        return self._listing.refused

    @property
    def waited(self) -> float:
        """Seconds that readers spent waiting for bytes so far, in this process."""
        return self._ahead.waited

    def files(self) -> tuple[FileEntry, ...]:
        """Every file below the URL, sorted by name."""
        return tuple(self._listing.files.values())

    def is_local(self, file: str) -> bool:
        """False: everything comes over the network."""
        del file
        return False

    def read(self, span: ByteRange) -> Bytes:
        """Return a copy of these bytes, fetched at once and by this thread.

        Raises:
            CheckpointError: the range leaves the file, or the file changed since it was listed.
            AccessError: the store refuses, or cannot be reached for longer than patience lasts.
        """
        self._check(span)
        if self._ahead.knows(span):
            data = self._ahead.take(span).copy()
            self._ahead.done_with(span)
            return data
        return self._fetch(span)

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        """Lend these bytes, read-only, from what was fetched ahead or as soon as they come."""
        self._check(span)
        data = self._ahead.take(span)
        try:
            yield data
        finally:
            self._ahead.done_with(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Copy these bytes into the caller's array."""
        with self.open(span) as data:
            out[...] = data

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Fetch these ranges ahead, in this order, as far as the budget of memory allows."""
        spans = list(spans)
        for span in spans:
            self._check(span)
        self._ahead.plan(spans)

    def close(self) -> None:
        """End all requests and drop what was fetched."""
        self._closing.set()
        self._ahead.close()

    def __enter__(self) -> RemoteSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, span: ByteRange) -> None:
        """Refuse a range outside the file before anything is allocated or asked for."""
        if self._process != os.getpid():  # a fork copies the bookkeeping, and neither threads nor connections
            self._start()
        entry = self._listing.files.get(span.file)
        if entry is None:
            raise CheckpointError("no such file in the checkpoint", file=printable(span.file))
        if not 0 <= span.start <= span.stop <= entry.size:
            problem = f"bytes {span.start} to {span.stop} were asked for, and the file has {entry.size}"
            raise CheckpointError(problem, file=span.file, remedy=CHANGED)

    def _fetch(self, span: ByteRange) -> Bytes:
        if span.size == 0:
            return np.empty(0, np.uint8)
        return self._patience.call(lambda: self._attempt(span), what="reading from the store", file=span.file)

    def _attempt(self, span: ByteRange) -> Bytes:
        """One request, and then the question whether the object is still the one that was listed."""
        path = self._listing.root + span.file
        with store_faults(span.file):
            driver = self._open()
            data = driver.cat_file(path, start=span.start, end=span.stop)
            now = _marks(driver.info(path))
        if any(now.get(key, value) != value for key, value in self._listing.marks[span.file].items()):
            raise CheckpointError("the file changed since it was listed", file=span.file, remedy=CHANGED)
        if len(data) != span.size:
            raise TransientError(f"the store sent {len(data)} bytes instead of {span.size}")
        return np.frombuffer(data, np.uint8)

    def _open(self) -> Any:
        with self._opening:
            if self._driver is None:
                self._driver, _ = _driver_of(self._listing.url)
            return self._driver


def _driver_of(url: str) -> tuple[Any, str]:
    """The driver of a URL's protocol, with nothing remembered of earlier listings, and the path there."""
    try:
        import fsspec  # noqa: PLC0415
        from fsspec.core import url_to_fs  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError.of(f"reading {_shown(url)}", "remote") from None
    protocol = url.partition("::")[0].partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError:
        raise MissingExtraError.of(f"reading {protocol}://", "remote") from None
    except ValueError:
        remedy = "Give a folder, a hub repository, or a URL such as s3://BUCKET/FOLDER"
        raise TargetError(f"there is no protocol {protocol}://", file=_shown(url), remedy=remedy) from None
    driver, path = url_to_fs(url, use_listings_cache=False)
    return driver, str(path)


def _list(url: str) -> RemoteListing:
    with store_faults(_shown(url)):
        driver, root = _driver_of(url.rstrip("/"))
        root = root.rstrip("/")
        found = driver.find(root, detail=True)
    if len(found) > MAX_ENTRIES:
        raise TargetError(f"over {MAX_ENTRIES} files", file=_shown(url), remedy="Give the folder of one checkpoint")
    if not found:
        raise TargetError("there is nothing at this URL", file=_shown(url), remedy="Check the bucket and the path")
    files, marks, refused = {}, {}, {}
    for path, info in sorted(found.items()):
        name = "" if path == root else str(path).removeprefix(f"{root}/")
        size = info.get("size")
        if info.get("type") == "directory" or not name or name.endswith("/"):
            continue
        if not encodable(name) or not name.isprintable() or ".." in name.split("/"):
            refused[printable(name)] = "not a plain path inside the folder"
        elif type(size) is not int or size < 0:
            refused[name] = "of a size that the store does not say"
        else:
            marks[name] = _marks(info)
            stamp = f"{size}-{'-'.join(marks[name].values())}"
            digest = f"etag:{etag}" if (etag := marks[name].get("etag")) else None
            files[name] = FileEntry(name, size, digest=digest, stamp=stamp)
    if not files and not refused:  # the URL is that of one file
        folder = url.rstrip("/").rpartition("/")[0]
        return _list(folder)
    return RemoteListing(url.rstrip("/"), f"{root}/", files, marks, refused)


def _marks(info: Mapping[str, Any]) -> dict[str, str]:
    """What a driver says that marks a version: an entity tag alone where there is one."""
    lowered = {key.lower(): value for key, value in info.items()}
    found = {key: str(lowered[key]).strip('"') for key in _MARKS if lowered.get(key) is not None}
    return {"etag": found["etag"]} if "etag" in found else found


@contextmanager
def store_faults(what: str) -> Iterator[None]:
    """Turn what a driver raises into TransientError, or into an error that a user can act on; no URL is repeated."""
    try:
        yield
    except (LlmtrapError, TransientError):
        raise
    except FileNotFoundError:
        raise TargetError("there is nothing at this place", file=what, remedy="Check the bucket and the path") from None
    except PermissionError:
        raise AccessError("the store refuses to let this be read", file=what, remedy=_ACCESS) from None
    except (TypeError, AttributeError, KeyError, NotImplementedError):
        raise
    except Exception as error:
        name = type(error).__name__
        if "Credential" in name or "Authentication" in name:
            raise AccessError(f"the store asks who is reading ({name})", file=what, remedy=_ACCESS) from None
        raise TransientError(f"the store's driver failed ({name})") from None


def _shown(url: str) -> str:
    """The URL without a user's name and password."""
    scheme, separator, rest = url.partition("://")
    place = urlsplit(f"//{rest}").netloc
    return f"{scheme}{separator}{rest.removeprefix(place.rpartition('@')[0] + '@') if '@' in place else rest}"
