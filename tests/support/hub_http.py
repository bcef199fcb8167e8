"""How the loopback hub answers: the paths, statuses and headers of the public hub, and its faults on demand."""

from __future__ import annotations

import json
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support import hub_faults as faults
from tests.support.hub_faults import Asked, Fault, Served

if TYPE_CHECKING:
    from tests.support.hub import LoopbackHub, Repository, ServedFile

CHUNK = 16 << 10


class Handler(BaseHTTPRequestHandler):
    """One connection to the hub, or to its file server."""

    hub: LoopbackHub
    place: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path = url.path.strip("/")
        listing = path.startswith(("api/models", "api/datasets", "api/spaces"))
        where = "cdn" if self.place == "cdn" else "api" if listing else "hub"
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        repository, commit, file = self._find(path)
        asked = Asked(where, self.command, path, file, _range(self.headers.get("Range")), token, dict(self.headers))
        self.record = Served(asked, 0, time.monotonic())
        self.hub.served.append(self.record)
        fault = self.hub.rule(asked)
        match fault:
            case faults.Status(code, headers):
                self._send(code, headers, b"{}")
            case faults.Redirect(to):
                self._send(302, {"Location": to}, b"")
            case faults.Drop(None):
                self._hang_up()
            case _ if where == "cdn" and not self.hub.link_is_good(url.query):
                self._send(403, {}, b"<Error>expired</Error>")
            case _ if where == "cdn":
                self._send_file(_known(repository).commits[commit][_known(file)], {}, fault)
            case _ if (refusal := self._refusal(repository, commit, file, token, where)) is not None:
                self._send(*refusal)
            case _ if where == "api":
                self._send_listing(_known(repository), commit, path, url.query)
            case _:
                self._send_resolved(_known(repository), commit, _known(file), path, fault)

    def _find(self, path: str) -> tuple[Repository | None, str, str | None]:
        """Repository, commit and file of a path of the API, of a file's page or of a file server."""
        parts = [unquote(part) for part in path.removeprefix("api/").removeprefix("resolve-cache/").split("/")]
        kind = parts.pop(0) if path.startswith("api/") else "models"
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None or repository.kind != kind:
            return None, "", None
        rest = parts[2:]
        if rest and rest[0] in ("resolve", "revision", "tree", "refs"):
            rest = rest[1:]
        revision = rest[0] if rest else "main"
        return repository, repository.refs.get(revision, revision), "/".join(rest[1:]) or None

    def _refusal(
        self, repository: Repository | None, commit: str, file: str | None, token: str | None, where: str
    ) -> tuple[int, dict[str, str], bytes] | None:
        """What the public hub says no with: status, headers, body."""
        if token in self.hub.refused_tokens:
            message = "Invalid credentials in Authorization header"
            return 401, {"X-Error-Message": message}, json.dumps({"error": message}).encode()
        known = token in self.hub.tokens
        if repository is None or (repository.private and not known):
            return 404 if token else 401, _error("RepoNotFound", "Repository not found"), b"{}"
        if commit not in repository.commits:
            return 404, _error("RevisionNotFound", "Invalid rev id"), b"{}"
        if where == "hub" and file not in repository.commits[commit]:
            return 404, _error("EntryNotFound", "Entry not found"), b"{}"
        if where == "hub" and repository.gated and not known:
            return 403 if token else 401, _error("GatedRepo", "Access is restricted"), b"{}"
        return None

    def _send_listing(self, repository: Repository, commit: str, path: str, query: str) -> None:
        files = repository.commits[commit]
        if path.endswith(f"{repository.repo_id}/refs"):
            refs = [{"name": name, "targetCommit": at} for name, at in repository.refs.items()]
            branches = [{**ref, "ref": f"refs/heads/{ref['name']}"} for ref in refs if ref["name"] == "main"]
            tags = [{**ref, "ref": f"refs/tags/{ref['name']}"} for ref in refs if ref["name"] != "main"]
            self._send_json({"branches": branches, "tags": tags, "converts": []})
            return
        if "/tree/" in path:
            self._send_json([_tree_entry(name, file) for name, file in files.items()])
            return
        with_sizes = parse_qs(query).get("blobs") == ["true"] and self.hub.sizes_in_info
        siblings = [_sibling(name, file, with_sizes) for name, file in files.items()]
        names = {"id": repository.repo_id, "modelId": repository.repo_id, "sha": commit, "private": repository.private}
        self._send_json({**names, "gated": "manual" if repository.gated else False, "tags": [], "siblings": siblings})

    def _send_resolved(self, repository: Repository, commit: str, file: str, path: str, fault: Fault | None) -> None:
        """Where the file is: large ones at the file server, small ones at another path of the hub."""
        served = repository.commits[commit][file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{served.etag}"'} if self.hub.vouches else {}
        linked = {"X-Linked-Etag": f'"{served.etag}"', "X-Linked-Size": str(len(served.data))}
        linked = linked if self.hub.vouches else {}
        if path.startswith("api/resolve-cache/"):
            self._send_file(served, headers, fault)
        elif served.sha256:
            location = self.hub.link(repository, commit, file)
            self._send(302, {**headers, **linked, "Location": location}, b"")
        else:
            location = f"/api/resolve-cache/models/{repository.repo_id}/{commit}/{quote(file)}?etag={served.etag}"
            self._send(307, {**headers, **linked, "Location": location}, b"")

    def _send_file(self, file: ServedFile, headers: dict[str, str], fault: Fault | None) -> None:
        """A file, or the range of it that was asked for, or what the fault makes of that."""
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **headers}
        start, stop, size, status = 0, len(file.data), len(file.data), 200
        asked = self.record.asked.range
        if asked and not isinstance(fault, faults.Whole):
            start, stop, status = asked[0], min(asked[1], size), 206
            if start >= size:
                self._send(416, {"Content-Range": f"bytes */{size}"}, b"")
                return
            if isinstance(fault, faults.Shifted):
                start, stop = start + fault.by, min(stop + fault.by, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if isinstance(fault, faults.Headers):
            headers |= fault.values
        self._start(status, headers, stop - start)
        if self.command == "GET":
            self._pour(memoryview(file.data)[start:stop], fault)

    def _pour(self, body: memoryview, fault: Fault | None) -> None:
        chunk = fault.size if isinstance(fault, faults.Drip) else CHUNK
        limit = fault.after if isinstance(fault, (faults.Drop, faults.Stall)) else None
        while body:
            if limit is not None and self.record.body >= limit:
                if isinstance(fault, faults.Stall):
                    time.sleep(fault.seconds)
                self._hang_up()
                return
            part = body[: chunk if limit is None else min(chunk, limit - self.record.body)]
            # Counted first: the other side may have the last part before this thread goes on
            self.record.body += len(part)
            self.hub.wait_for_line(len(part))
            self.wfile.write(part)
            body = body[len(part) :]
            if isinstance(fault, faults.Drip):
                time.sleep(fault.pause)

    def _send_json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._start(status, headers, len(body))
        if self.command == "GET":
            self.wfile.write(body)

    def _start(self, status: int, headers: dict[str, str], length: int) -> None:
        self.record.status = status
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def _error(code: str, message: str) -> dict[str, str]:
    return {"X-Error-Code": code, "X-Error-Message": message}


def _range(header: str | None) -> tuple[int, int] | None:
    if header is None:
        return None
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


def _sibling(name: str, file: ServedFile, with_sizes: bool) -> dict[str, object]:
    if not with_sizes:
        return {"rfilename": name}
    lfs = {"lfs": {"sha256": file.sha256, "size": len(file.data), "pointerSize": 134}} if file.sha256 else {}
    return {"rfilename": name, "size": len(file.data), "blobId": file.git, **lfs}


def _tree_entry(name: str, file: ServedFile) -> dict[str, object]:
    lfs = {"lfs": {"oid": file.sha256, "size": len(file.data), "pointerSize": 134}} if file.sha256 else {}
    return {"type": "file", "path": name, "size": len(file.data), "oid": file.git, **lfs}


def _known(value: Any) -> Any:
    assert value is not None
    return value
