"""A hub that means harm: bodies and headers without end, drips, false pages, and places that the token must not see."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import pytest

from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.sources.hub import HubOptions, HubSource, silence
from llmtrap.errors import AccessError, LlmtrapError

TOKEN = "hf_secretsecret"  # noqa: S105
DATA = bytes(range(256)) * 512
SHA256 = hashlib.sha256(DATA).hexdigest()
# Short where it is time that must run out, long where a busy machine must not be taken for a slow hub.
HASTY, PATIENT = HubOptions(patience=1.0, timeout=0.3, threads=1), HubOptions(patience=60.0, timeout=20.0, threads=1)
FILE = {"rfilename": "model.safetensors", "size": len(DATA), "lfs": {"sha256": SHA256, "size": len(DATA)}}

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; `answer` decides what comes of it."""

    protocol_version = "HTTP/1.1"
    answer: Answer
    seen: list[tuple[str, str | None]]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        with suppress(OSError):
            type(self).answer(self)
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | given).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def listing(self, **changed: Any) -> None:
        self.send(200, json.dumps({"id": "org/model", "sha": "a" * 40, "siblings": [FILE]} | changed).encode())

    def endless(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(4000):
            self.wfile.write(b"100000\r\n" + b"a" * 0x100000 + b"\r\n")

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/")

    @property
    def is_tree(self) -> bool:
        return "/tree/" in self.path


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Request,), {"answer": answer, "seen": seen}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def logged_in(hub_home: Path) -> Iterator[None]:
    (hub_home / "token").write_text(TOKEN)
    yield
    huggingface_hub.close_session()


def opened(options: HubOptions, *, read: bool) -> None:
    source = HubSource.from_target("org/model", options=options)
    if read:
        source.read(ByteRange("model.safetensors", 0, 100_000))


def refusal(monkeypatch: pytest.MonkeyPatch, answer: Answer, options: HubOptions, *, read: bool = False) -> str:
    """What comes of such a hub: one error in words, in bounded time and memory."""
    with served(answer) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        began = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises(LlmtrapError) as caught:
                opened(options, read=read)
            assert tracemalloc.get_traced_memory()[1] < 200e6
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < 60
        assert TOKEN not in caught.value.message
        return caught.value.message


def million(request: Request) -> None:
    request.send(200, b'{"id":"org/model","siblings":[' + b'{"rfilename":"x"},' * 2_000_000 + b"{}]}")


def pages(request: Request) -> None:
    if not request.is_tree:
        request.listing(siblings=[{"rfilename": "model.safetensors"}])
        return
    entry = b'{"type":"file","path":"a","size":1}'
    request.send(200, b"[" + (entry + b",") * 5000 + entry + b"]", Link=f'<{request.path}&x>; rel="next"')


def no_page(request: Request) -> None:
    if request.is_tree:
        request.send(200, b"[]", Link='<http://[::bad>; rel="next"')
    else:
        request.listing(siblings=[{"rfilename": "model.safetensors"}])


def dripped(request: Request, pause: float = 0.1) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(b" ")
        time.sleep(pause)


def dripped_head(request: Request) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    for _ in range(1000):
        request.wfile.write(b"a")
        time.sleep(0.1)


RUN_OUT = ("took too long", "did not answer in time", "dropped the connection")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: request.endless(200), "over 32 MiB, more than any listing"),
        (lambda request: request.endless(404), "no model repository org/model"),
        (lambda request: request.endless(418), "the hub answered 418"),
        (lambda request: request.send(200, gzip.compress(b"{}"), Content_Encoding="gzip"), "compresses"),
        (lambda request: request.send(200, b"[" * 100_000), "does not answer like a hub"),
        (lambda request: request.send(200, b'{"id":1,"id":2}'), "does not answer like a hub"),
        (lambda request: request.send(200, b"[]"), "does not answer like a hub"),
        (lambda request: request.send(200, b"", Content_Length="9" * 5000), "dropped the connection"),
        (lambda request: request.send(307, Location=request.path), "redirects more than 5 times"),
        (lambda request: request.send(307, Location="file:///etc/passwd"), "not encrypted"),
        (lambda request: request.send(307, Location="http://[::bad"), "does not answer like a hub"),
        (lambda request: request.listing(sha="../../etc"), "does not say which commit"),
        (lambda request: request.listing(sha=7), "does not say which commit"),
        (lambda request: request.listing(id="../../../tmp/x\x1b[2J/##[a]b"), "does not answer like a hub"),
        (lambda request: request.listing(siblings="x"), "does not answer like a hub"),
        (lambda request: request.listing(siblings=[7]), "does not answer like a hub"),
        (million, "over 32 MiB|does not answer like a hub"),
        (no_page, "does not answer like a hub"),
        (pages, "lists over 100,000 files"),
        (dripped, "took too long"),
        (dripped_head, "did not answer in time"),
    ],
)  # fmt: skip
def test_no_answer_is_without_end(monkeypatch: pytest.MonkeyPatch, answer: Answer, words: str) -> None:
    options = HASTY if words in RUN_OUT else PATIENT
    assert re.search(words, refusal(monkeypatch, answer, options))


def of_file(answer: Answer) -> Answer:
    def both(request: Request) -> None:
        if request.is_api:
            request.listing()
        elif request.command == "HEAD":
            request.send(200, Content_Length=str(len(DATA)))
        else:
            answer(request)

    return both


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: request.endless(404),
        lambda request: request.send(302, Location="http://[::bad"),
        lambda request: request.send(302, Location="http://a:99999999/"),
        lambda request: request.send(206, b"", Content_Range="bytes 0-" + "9" * 5000 + "/7"),
        lambda request: request.send(200, b"", Content_Length="9" * 5000),
        dripped,
        dripped_head,
    ],
    ids=["endless 404", "no address", "no port", "huge range", "huge length", "drip", "dripped head"],
)
def test_no_file_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    assert refusal(monkeypatch, of_file(answer), HASTY, read=True)


@pytest.mark.parametrize("how", ["next page", "redirect"])
def test_the_token_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with served(lambda request: request.listing()) as (elsewhere, others):

        def answer(request: Request) -> None:
            if how == "redirect":
                request.send(307, Location=f"{elsewhere}{request.path}")
            elif request.is_tree:
                request.send(200, b"[]", Link=f'<{elsewhere}/leak>; rel="next"')
            else:
                request.listing(siblings=[{"rfilename": "model.safetensors"}])

        with served(answer) as (endpoint, seen):
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            with suppress(LlmtrapError):
                HubSource.from_target("org/model", options=PATIENT)
    assert seen[0][1] == f"Bearer {TOKEN}"
    assert all(token is None for _, token in others)
    assert bool(others) == (how == "redirect")


def test_names_and_sizes_that_no_file_has_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["../../x", "/etc/x", "a\0b", "a\\b", "x" * 100_000, "\ud800", "a\n::error::x", 5, None]
    odd = [{"rfilename": name, "size": 1, "blobId": "b" * 40} for name in names]
    twice = [{"rfilename": "twice", "size": size, "blobId": "b" * 40} for size in (1, 2)]
    with served(lambda request: request.send(200, b"[]") if request.is_tree else request.listing(
        siblings=[FILE, *odd, *twice]
    )) as (endpoint, _):  # fmt: skip
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        source = HubSource.from_target("org/model", options=PATIENT)
    assert {entry.name for entry in source.files()} <= {"model.safetensors", "5", "None"}
    assert source.refused["twice"] == "the hub lists it twice"
    assert all(name.isprintable() and len(name) < 400 for name in source.refused)


def test_silence_is_explained_within_two_seconds_and_never_lasts_five(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert silence.SAID_AFTER + silence.LOOKED_EVERY < 2
    assert silence.SAID_AT_LEAST_EVERY + silence.LOOKED_EVERY < 5
    monkeypatch.setattr(silence, "SAID_AFTER", 0.2)
    monkeypatch.setattr(silence, "LOOKED_EVERY", 0.02)
    with served(lambda _: time.sleep(30)) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint.replace("http://", "http://me:hunter2@"))
        with caplog.at_level(logging.WARNING, logger="llmtrap"), pytest.raises(LlmtrapError):
            HubSource.from_target("org/model", options=HubOptions(patience=1.6, timeout=1.5))
    first, second, third = [record for record in caplog.records if record.getMessage().startswith("no answer")][:3]
    assert second.created - first.created >= 0.4
    assert third.created - second.created >= 0.8
    host = urlsplit(endpoint).netloc
    assert first.getMessage().startswith(f"no answer from {host} yet, waiting until ")
    assert time.strptime(first.getMessage()[-8:], "%H:%M:%S")
    assert not any("hunter2" in record.getMessage() for record in caplog.records if record.name.startswith("llmtrap"))


def test_a_server_that_no_connection_leads_to_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(silence, "SAID_AFTER", 0.1)
    monkeypatch.setattr(silence, "LOOKED_EVERY", 0.02)
    with served(lambda _: None) as (endpoint, _):
        host = urlsplit(endpoint).netloc
    monkeypatch.setenv("HF_ENDPOINT", endpoint)  # nobody listens there any more
    with caplog.at_level(logging.WARNING, logger="llmtrap"), pytest.raises(AccessError, match="cannot be reached"):
        HubSource.from_target("org/model", options=HubOptions(patience=3.0, timeout=1.5))
    said = {record.getMessage()[:-8] for record in caplog.records if record.name.startswith("llmtrap")}
    assert f"cannot reach {host} ([Errno 111] Connection refused), trying again until " in said
    assert all(text.startswith((f"cannot reach {host} (", f"no answer from {host} yet")) for text in said)
