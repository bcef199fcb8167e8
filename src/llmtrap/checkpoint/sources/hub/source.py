"""A hub repository as a source: streamed by byte ranges, with nothing kept on disk unless asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from huggingface_hub import constants

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity
from llmtrap.checkpoint.sources.hub.cache import HubCache, within
from llmtrap.checkpoint.sources.hub.library import host_of, is_offline
from llmtrap.checkpoint.sources.hub.listing import HubListing, list_repository
from llmtrap.checkpoint.sources.hub.location import CHANGED
from llmtrap.checkpoint.sources.hub.prefetch import Prefetcher
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy
from llmtrap.checkpoint.sources.hub.target import hub_endpoint, parse_target
from llmtrap.checkpoint.sources.hub.transfer import RangeReader, Traffic
from llmtrap.errors import AccessError, CheckpointError, UsageError

# A file's header is read together with what follows it. That is kept and goes along to workers, so that no byte of it
# is fetched again, unless there are so many files that the copies would weigh more than the bytes saved.
_HEAD = 1 << 16
_HEADS_TO_SEND = 4 << 20


@dataclass(frozen=True)
class HubOptions:
    """How a hub is read.

    Args:
        patience: seconds that one read may go without success before it is given up (`LLMTRAP_HUB_PATIENCE`).
        timeout: seconds without a byte after which a connection is given up; default the library's
            (`HF_HUB_DOWNLOAD_TIMEOUT`).
        budget: bytes held or under way ahead of the computation, in each process.
        keep: bytes of the matrix in hand that are kept, so that reading it again does not fetch it again.
        piece: bytes of one request, at most.
        threads: requests at a time, in each process.
    """

    patience: float = 300.0
    timeout: float = 10.0
    budget: int = 128 << 20
    keep: int = 64 << 20
    piece: int = 8 << 20
    threads: int = 8

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> HubOptions:
        """The defaults, as far as the environment does not say otherwise.

        Raises:
            UsageError: `LLMTRAP_HUB_PATIENCE` is not a number of seconds.
        """
        options = cls(timeout=float(constants.HF_HUB_DOWNLOAD_TIMEOUT))
        text = environment.get("LLMTRAP_HUB_PATIENCE")
        if text is None:
            return options
        try:
            return replace(options, patience=float(text))
        except ValueError:
            raise UsageError(f"LLMTRAP_HUB_PATIENCE={text!r} is not a number of seconds") from None


class HubSource:
    """The files of one model repository at one commit. Picklable: a copy lists nothing again and fetches for itself.

    The token is never held: each request reads it anew, as the library finds it.

    Args:
        listing: the repository pinned to its commit, with its files.
        download: keep the files that are read in the hub's cache.
        options: how the hub is read.
    """

    def __init__(self, listing: HubListing, *, download: bool = False, options: HubOptions | None = None):
        self._listing = listing
        self._download = download
        self._options = options or HubOptions.from_environment()
        self._entries = {entry.name: entry for entry in listing.files}
        self._start()

    @classmethod
    def from_target(
        cls,
        target: str,
        *,
        revision: str | None = None,
        download: bool = False,
        options: HubOptions | None = None,
        first_contact: float | None = None,
    ) -> HubSource:
        """Find a repository on the hub and pin it to its present commit; one request.

        Args:
            target: `org/name`, `org/name@revision`, `hf://…`, or the address of its page.
            revision: branch, tag or commit, where the target does not name one itself.
            download: keep the files that are read in the hub's cache, instead of streaming them.
            options: how the hub is read; default from the environment.
            first_contact: seconds that the listing may fail, where that is less than the options' patience.

        Raises:
            TargetError: the target names no model repository, or no revision of it.
            AccessError: it is private or gated, or the hub cannot be reached.
            UsageError: the target names one revision, and `revision` another.
        """
        options = options or HubOptions.from_environment()
        asked = parse_target(target)
        if revision and asked.revision not in (None, revision):
            raise UsageError(f"the target names revision '{asked.revision}', and --revision says '{revision}'")
        longest = min(options.patience, first_contact or options.patience)
        patience = RetryPolicy(longest, threading.Event(), host=host_of(hub_endpoint()))
        asked = replace(asked, revision=asked.revision or revision)
        listing = list_repository(asked, hub_endpoint(), patience, options.timeout)
        return cls(listing, download=download, options=options)

    def _start(self) -> None:
        """Everything that a copy in another process must have of its own."""
        self._closing = threading.Event()
        self._process = os.getpid()
        self._heads: dict[str, Bytes] = getattr(self, "_heads", {})
        options, repository = self._options, self._listing.repository
        patience = RetryPolicy(options.patience, self._closing, host=host_of(repository.endpoint))
        self._reader = RangeReader(repository, self._entries, patience, options.timeout, self._closing)
        self._ahead = Prefetcher(
            self._fetch,
            budget=options.budget,
            keep=options.keep,
            piece=options.piece,
            threads=options.threads,
        )
        self._cache = HubCache(repository, self._entries, patience)

    def __getstate__(self) -> dict[str, Any]:
        heads = self._heads if sum(head.size for head in self._heads.values()) <= _HEADS_TO_SEND else {}
        return {"listing": self._listing, "download": self._download, "options": self._options, "heads": heads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["listing"], download=state["download"], options=state["options"])  # type: ignore[misc]
        self._heads = state["heads"]

    def __repr__(self) -> str:
        repository = self._listing.repository
        return f"HubSource({repository.repo_id!r}, revision={repository.revision!r})"

    @property
    def identity(self) -> SourceIdentity:
        """The repository's name and the full hash of the commit that is read."""
        repository = self._listing.repository
        return SourceIdentity(repository.repo_id, "hub", repository.revision)

    @property
    def refused(self) -> dict[str, str]:
        """Files that the hub lists and that will not be read, with the reason: name → reason."""
        return self._listing.refused

    @property
    def traffic(self) -> Traffic:
        """What went over the wire so far, in this process."""
        return self._reader.traffic

    @property
    def waited(self) -> float:
        """Seconds that readers spent waiting for bytes so far, in this process."""
        return self._ahead.waited

    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the repository at its commit, sorted by name."""
        return self._listing.files

    def is_local(self, file: str) -> bool:
        """Whether this file is read from the cache and not over the network."""
        return self._cache.find(file) is not None

    def read(self, span: ByteRange) -> Bytes:
        """Return a copy of these bytes, fetched at once and by this thread.

        Raises:
            CheckpointError: the range leaves the file, or the file changed since it was listed.
            AccessError: the hub refuses, or cannot be reached for longer than patience lasts.
        """
        entry = self._check(span)
        whole = span.size == entry.size
        local = self._cache.fetch(span.file) if self._download and whole else self._cache.find(span.file)
        if local is not None:
            return local.read(within(span))
        self._check_online(span.file)
        if self._ahead.knows(span):
            data = self._ahead.take(span).copy()
            self._ahead.done_with(span)
            return data
        if span.start == 0 and span.size <= _HEAD:
            self._heads[span.file] = self._reader.fetch(span)
            return self._heads[span.file].copy()
        return self._fetch(span)

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        """Lend these bytes, read-only, from what was fetched ahead or as soon as they come.

        Raises:
            CheckpointError: the range leaves the file, or the file changed since it was listed.
            AccessError: the hub refuses, or cannot be reached for longer than patience lasts.
        """
        self._check(span)
        local = self._cache.fetch(span.file) if self._download else self._cache.find(span.file)
        if local is not None:
            with local.open(within(span)) as data:
                yield data
            return
        self._check_online(span.file)
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
        """Fetch these ranges ahead, in this order, as far as the budget of memory allows.

        What is named is kept after its first use, so that it can be read again; what only an earlier call named is
        dropped. With `download`, whole files are fetched as they are opened, and nothing ahead.
        """
        spans = list(spans)
        for span in spans:
            self._check(span)
        if not self._download and not is_offline():
            self._ahead.plan(span for span in spans if self._cache.find(span.file) is None)

    def close(self) -> None:
        """End all requests and drop what was fetched."""
        self._closing.set()
        self._ahead.close()
        self._cache.close()

    def __enter__(self) -> HubSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self, span: ByteRange) -> Bytes:
        """These bytes from what was read with the header, as far as that goes, and the rest over the wire."""
        head = self._heads.get(span.file, np.empty(0, np.uint8))[span.start : span.stop]
        rest = self._reader.fetch(ByteRange(span.file, span.start + head.size, span.stop))
        return np.concatenate([head, rest]) if head.size else rest

    def _check(self, span: ByteRange) -> FileEntry:
        """Refuse a range outside the file before anything is allocated or asked for."""
        if self._process != os.getpid():  # a fork copies the bookkeeping, and neither threads nor connections
            self._start()
        entry = self._entries.get(span.file)
        if entry is None:
            raise CheckpointError("no such file in the repository", file=printable(span.file))
        if not 0 <= span.start <= span.stop <= entry.size:
            problem = f"bytes {span.start} to {span.stop} were asked for, and the file has {entry.size}"
            raise CheckpointError(problem, file=span.file, remedy=CHANGED)
        return entry

    def _check_online(self, file: str) -> None:
        if is_offline():
            name = self._listing.repository.repo_id
            remedy = f"Unset HF_HUB_OFFLINE, or fetch it where there is a network: hf download {name}"
            raise AccessError("offline mode is on, and this file is not in the cache", file=file, remedy=remedy)
