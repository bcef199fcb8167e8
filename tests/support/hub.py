"""A hub on loopback: real HTTP on two ports (the hub and its file servers), as huggingface_hub speaks to it.

Large files are redirected to the second, which has another host name, by signed addresses that can expire; small ones
to a path of the hub itself, as the public hub does. Every request and byte is counted, and faults are made on demand.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote

from tests.support import hub_faults as faults
from tests.support.hub_faults import Rule, Served
from tests.support.hub_http import Handler


@dataclass(frozen=True)
class ServedFile:
    """One file of a repository, by the hashes a hub calls it by."""

    data: bytes = field(repr=False)
    git: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.git

    @classmethod
    def of(cls, data: bytes, large: bool) -> ServedFile:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return cls(data, git, hashlib.sha256(data).hexdigest() if large else None)


@dataclass
class Repository:
    """A model repository: its branches and tags, and the files of each commit."""

    repo_id: str
    commits: dict[str, dict[str, ServedFile]]
    refs: dict[str, str]
    kind: str = "models"
    gated: bool = False
    private: bool = False


class LoopbackHub:
    """Serves repositories until closed. Use as a context manager; `endpoint` goes into HF_ENDPOINT.

    `rule` decides which requests go wrong; `bandwidth` limits all bodies together, in bytes a second; `tokens` open
    private and gated repositories; `sizes_in_info` switches off what the listing of a very large repository lacks, and
    `vouches` what a mirror does not say of a file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.served: list[Served] = []
        self.rule: Rule = faults.never
        self.bandwidth: float | None = None
        self.tokens: set[str] = set()
        self.refused_tokens: set[str] = set()
        self.sizes_in_info = True
        self.vouches = True
        self._generation = 0
        self._lock = threading.Lock()
        self._line_free = 0.0
        self._hub, self._cdn = _listen(self, "hub"), _listen(self, "cdn")
        self.endpoint = f"http://127.0.0.1:{self._hub.server_address[1]}"
        self.cdn = f"http://localhost:{self._cdn.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes] | Path, *, ref: str = "main", kind: str = "models") -> str:
        """Commit these files, or a folder's, to a branch; the commit's hash."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        served = {name: ServedFile.of(data, large=_is_large(name, data)) for name, data in sorted(files.items())}
        repository = self.repositories.setdefault(repo_id, Repository(repo_id, {}, {}, kind))
        commit = hashlib.sha1(
            repr([(n, f.etag) for n, f in served.items()]).encode(), usedforsecurity=False
        ).hexdigest()
        repository.commits[commit] = served
        repository.refs[ref] = commit
        return commit

    def replace(self, repo_id: str, file: str, data: bytes) -> None:
        """Change a file under a commit that was served before, which no honest hub does."""
        for files in self.repositories[repo_id].commits.values():
            files[file] = ServedFile.of(data, large=_is_large(file, data))

    def expire_links(self) -> None:
        """Let every signed address given so far be refused."""
        self._generation += 1

    def count(self, where: str | None = None, method: str | None = None) -> int:
        """Requests so far, of one place and method or of all."""
        asked = [served.asked for served in self.served]
        return sum(where in (None, one.where) and method in (None, one.method) for one in asked)

    @property
    def bytes_sent(self) -> int:
        """Bytes of all bodies of files so far, at the hub and the file servers."""
        return sum(served.body for served in self.served if served.asked.where != "api")

    def spans_sent(self) -> list[tuple[str, int, int]]:
        """The ranges of the file servers that were answered in full: file, start, stop; sorted."""
        whole = [served for served in self.served if served.asked.where == "cdn" and served.status in (200, 206)]
        spans = [(one.asked.file or "", *(one.asked.range or (0, one.body))) for one in whole]
        return sorted(span for one, span in zip(whole, spans, strict=True) if one.body == span[2] - span[1])

    def link(self, repository: Repository, commit: str, file: str) -> str:
        """A signed address for a file, good until links are expired."""
        query = f"Expires=2000000000&Signature=secret-{self._generation}"
        return f"{self.cdn}/{repository.repo_id}/{commit}/{quote(file)}?{query}"

    def link_is_good(self, query: str) -> bool:
        return parse_qs(query).get("Signature") == [f"secret-{self._generation}"]

    def wait_for_line(self, size: int) -> None:
        """Wait until a body of this size has passed the line."""
        if self.bandwidth is None:
            return
        with self._lock:
            self._line_free = max(self._line_free, time.monotonic()) + size / self.bandwidth
            until = self._line_free
        time.sleep(max(0.0, until - time.monotonic()))


def _is_large(name: str, data: bytes) -> bool:
    return name.endswith((".safetensors", ".bin")) or len(data) > 10 << 20


def _listen(hub: LoopbackHub, place: str) -> ThreadingHTTPServer:
    handler = type("BoundHandler", (Handler,), {"hub": hub, "place": place})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""
