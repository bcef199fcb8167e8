"""Exact byte ranges by HTTP: every answer is checked for being what was asked, and faults are outlived."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry
from llmtrap.checkpoint.sources.hub.errors import Repository, check_busy, check_hub_answer, transport_faults
from llmtrap.checkpoint.sources.hub.library import answer, http, hub_headers, number, plain_headers
from llmtrap.checkpoint.sources.hub.location import CHANGED, MAX_REDIRECTS, Location, Locator
from llmtrap.checkpoint.sources.hub.retry import ClosedError, RetryPolicy, TransientError
from llmtrap.errors import CheckpointError
from llmtrap.systems.process import own_mapping

# A server that answers a range with the whole file is borne with up to here; no further, for it may be 65 GB.
MAX_UNASKED = 16 << 20
# Less than this from one request counts as nothing, so that a server that drips cannot make requests without end.
MIN_PROGRESS = 64 << 10
# A connection slower than this over three timeouts is replaced by a new one (bytes a second).
MIN_RATE = 1024.0
# Pieces from this size on have memory of their own.
OWN_MAPPING_FROM = 1 << 20

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


@dataclass(frozen=True)
class Traffic:
    """What went over the wire: requests sent, requests that failed and were sent again, bytes of bodies received."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0


class RangeReader:
    """Reads byte ranges of one repository's files at one commit. Safe to use from several threads.

    Args:
        repository: the repository; `repository.revision` is the full commit hash.
        files: what the listing says of each file; one that turns out otherwise has changed, and stops the read.
        patience: how long faults are put up with.
        timeout: seconds without a byte after which a connection is given up.
        closing: set when reading must end at once.
    """

    def __init__(
        self,
        repository: Repository,
        files: Mapping[str, FileEntry],
        patience: RetryPolicy,
        timeout: float,
        closing: threading.Event,
    ):
        self._repository = repository
        self._files = files
        self._locator = Locator(repository, files, timeout)
        self._patience = patience
        self._timeout = timeout
        self._closing = closing
        self._traffic = Traffic()
        self._counting = threading.Lock()

    @property
    def traffic(self) -> Traffic:
        """What went over the wire so far."""
        with self._counting:
            return replace(self._traffic, requests=self._traffic.requests + self._locator.requests)

    def fetch(self, span: ByteRange) -> Bytes:
        """Return these bytes. A connection that drops midway is carried on from the last byte received.

        Raises:
            CheckpointError: the file is not the one that was listed, or the server does not serve ranges.
            AccessError: the hub refuses, or patience is out.
            ClosedError: the source was closed meanwhile.
        """
        out = _room(span.size)
        done = 0
        while done < span.size:
            rest, room = ByteRange(span.file, span.start + done, span.stop), out[done:]
            done += self._patience.call(
                lambda rest=rest, room=room: self._attempt(rest, room),  # type: ignore[misc]
                what="reading from the hub",
                file=span.file,
            )
        return out

    def _attempt(self, span: ByteRange, out: Bytes) -> int:
        """One request: fill `out` from its beginning; how many bytes came before the connection ended.

        Raises:
            TransientError: too few came to count.
        """
        location = self._locator.find(span.file)
        filling = _Filling(out)
        try:
            with transport_faults(location.host):
                self._receive(location, span, filling)
        except TransientError:
            if filling.done < min(MIN_PROGRESS, span.size):
                self._count(retries=1, bytes=filling.received)
                raise
        if filling.done < min(MIN_PROGRESS, span.size):
            self._count(retries=1, bytes=filling.received)
            raise TransientError(f"{location.host} dropped the connection")
        self._count(retries=int(filling.done < span.size), bytes=filling.received)
        self._locator.served(span.file)
        return filling.done

    def _receive(self, location: Location, span: ByteRange, filling: _Filling) -> None:
        for _ in range(MAX_REDIRECTS):
            self._count(requests=1)
            with answer("GET", location.url, self._headers(location, span), self._timeout) as response:
                if response.has_redirect_location:
                    self._locator.moved(span.file, location, response.headers["Location"])
                else:
                    filling.skip = self._check(location, span, response)
                    self._pour(response, filling)
                    return
            location = self._locator.find(span.file)
        raise CheckpointError(f"{location.host} redirects more than {MAX_REDIRECTS} times", file=span.file)

    def _headers(self, location: Location, span: ByteRange) -> dict[str, str]:
        """The token goes to the hub alone; a whole file is asked for plainly."""
        headers = {**(hub_headers() if location.at_hub else plain_headers()), "Accept-Encoding": "identity"}
        if (span.start, span.stop) != (0, self._files[span.file].size):
            headers["Range"] = f"bytes={span.start}-{span.stop - 1}"
        return headers

    def _check(self, location: Location, span: ByteRange, response: http.Response) -> int:
        """Hold the answer against the question; the number of leading bytes that were not asked for.

        Raises:
            TransientError: worth another try, perhaps at another address.
            CheckpointError: the file changed, or the server's answer cannot be used.
        """
        check_busy(response, location.host)
        status, size = response.status_code, self._files[span.file].size
        if status == 416:
            raise CheckpointError("the file is shorter than it was listed", file=span.file, remedy=CHANGED)
        if status not in (200, 206):
            if location.at_hub:
                check_hub_answer(response, self._repository, span.file)
            raise self._locator.refused(span.file, location, status)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise CheckpointError(f"{location.host} compresses what it sends", file=span.file, remedy=_USE_DOWNLOAD)
        self._check_etag(location, span.file, response.headers.get("ETag"))
        if status == 206:
            return self._check_range(span, response.headers.get("Content-Range", ""), size)
        length = number(response.headers.get("Content-Length"))
        if length not in (None, size):
            raise CheckpointError("the file changed its size since it was listed", file=span.file, remedy=CHANGED)
        if span.stop > MAX_UNASKED and span.size < size:
            problem = f"{location.host} answers a range of {span.size} bytes with the whole file of {size}"
            raise CheckpointError(problem, file=span.file, remedy=_USE_DOWNLOAD)
        return span.start

    def _check_etag(self, location: Location, file: str, etag: str | None) -> None:
        if not etag or etag.startswith("W/"):  # a weak one does not vouch for bytes (RFC 9110 §8.8.1)
            return
        if location.etag not in (None, etag):
            raise self._locator.contradicted(file, location)
        location.etag = etag

    def _check_range(self, span: ByteRange, sent: str, size: int) -> int:
        found = _CONTENT_RANGE.fullmatch(sent.strip())
        if found and found.group(3) not in ("*", str(size)):
            raise CheckpointError("the file changed its size since it was listed", file=span.file, remedy=CHANGED)
        # A server may send less than asked (RFC 9110 §15.3.7), but must begin where it was told to.
        if not found or int(found.group(1)) != span.start or int(found.group(2)) >= span.stop:
            problem = f"bytes {span.start} to {span.stop - 1} were asked for, and the server sent others"
            raise CheckpointError(problem, file=span.file, remedy=_USE_DOWNLOAD)
        return 0

    def _pour(self, response: http.Response, filling: _Filling) -> None:
        """Take the body until nothing is missing, the connection ends, or it has become too slow to wait for."""
        start = began = time.monotonic()
        before = 0
        for part in response.iter_raw():
            if self._closing.is_set():
                raise ClosedError
            filling.take(part)
            self._patience.heard()
            if filling.full:
                return
            now = time.monotonic()
            if now - start > self._patience.total:
                return  # what came counts if it is enough, and the rest is asked for anew
            if now - began > 3 * self._timeout:
                if filling.received - before < MIN_RATE * (now - began):
                    raise TransientError("the connection became too slow")
                began, before = now, filling.received

    def _count(self, requests: int = 0, retries: int = 0, bytes: int = 0) -> None:
        with self._counting:
            was = self._traffic
            self._traffic = Traffic(was.requests + requests, was.retries + retries, was.bytes + bytes)


def _room(size: int) -> Bytes:
    """New memory. A large piece is a mapping of its own, which goes back to the system as soon as it is dropped.

    malloc keeps what a thread frees for that thread's next piece, and with eight threads a third of the budget again.
    """
    if size < OWN_MAPPING_FROM:
        return np.empty(size, np.uint8)
    return np.frombuffer(own_mapping(size), np.uint8)


_USE_DOWNLOAD = "Try again with --download, which fetches whole files"


class _Filling:
    """A buffer being filled from its beginning, past leading bytes that nobody asked for."""

    def __init__(self, out: Bytes):
        self._out = out
        self.skip = 0
        self.done = 0
        self.received = 0

    @property
    def full(self) -> bool:
        return self.done == self._out.size

    def take(self, part: bytes) -> None:
        self.received += len(part)
        dropped = min(self.skip, len(part))
        self.skip -= dropped
        new = np.frombuffer(part, np.uint8)[dropped : dropped + self._out.size - self.done]
        self._out[self.done : self.done + new.size] = new
        self.done += new.size
