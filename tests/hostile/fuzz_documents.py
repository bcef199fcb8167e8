"""What the fuzzer does with documents of others: reports, policies, journals, and what a hub answers."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import threading
import tomllib
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import atheris
import huggingface_hub
from tests.support import documents

from llmtrap.audit.journal import Journal, PlanRecord
from llmtrap.checkpoint.sources.hub.library import http
from llmtrap.checkpoint.sources.hub.listing import list_repository
from llmtrap.checkpoint.sources.hub.retry import RetryPolicy
from llmtrap.checkpoint.sources.hub.target import HubTarget
from llmtrap.gate.judge import judge
from llmtrap.gate.matching import CheckpointContents, MatchedSides, match
from llmtrap.gate.outputs.markdown import to_markdown as judgement_markdown
from llmtrap.gate.outputs.sarif import to_sarif
from llmtrap.gate.policy_file import LoadedPolicy, load_policy
from llmtrap.gate.template import template
from llmtrap.report.against import compare
from llmtrap.report.document import Report
from llmtrap.report.html.index import write_index
from llmtrap.report.markdown import to_markdown
from llmtrap.report.read import read_report, schema_of
from llmtrap.report.text import plain

TODAY = datetime.date(2026, 1, 1)
VALUES = [json.dumps(value) for value in [
    None, True, False, 0, 1, -1, 2, 10**9, 2**63, 10**400, 0.5, -0.0, 5e-324, 1e308, -1e308, "", "a", "##[x]y", "::e::",
    "\x1b[2J", "\ud800", "measured", "certified", "off", "error", "LT001", [], {}, [1], [[]], {"a": 1}, "9" * 5000,
]]  # fmt: skip


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="llmtrap-fuzz-"))


@cache
def _report() -> dict[str, Any]:
    """A small report that has something of everything."""
    document = documents.trapped().to_json_dict()
    matrix = next(m for m in document["matrices"] if m["traps"] and m["traps"]["found"])
    for holder in (matrix["spectrum"], matrix["traps"]["shuffled"] or {}):
        if holder.get("histogram"):
            holder["histogram"] = {"edges": [0.5, 1.0, 2.0], "counts": [3, 4]}
    matrix["traps"]["found"] = matrix["traps"]["found"][:1]
    document["matrices"] = [matrix]
    document["coverage"]["skipped"] = [{"tensor": "a", "reason": "b"}]
    document["coverage"]["failed"] = [{"id": "a", "tensor": "a", "error": "b"}]
    return document


def _changed(provider: atheris.FuzzedDataProvider, document: Any) -> Any:
    """A copy with a few of its values put in the place of others, left out, or given another name."""
    copy = json.loads(json.dumps(document))
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        at = copy
        while isinstance(at, dict | list) and at:
            key = provider.PickValueInList(list(at) if isinstance(at, dict) else list(range(len(at))))
            if not isinstance(at[key], dict | list) or not at[key] or provider.ConsumeIntInRange(0, 7) == 0:
                _change(provider, at, key)
                break
            at = at[key]
    return copy


def _change(provider: atheris.FuzzedDataProvider, at: Any, key: Any) -> None:
    kind = provider.ConsumeIntInRange(0, 9)
    if kind == 0 and isinstance(at, dict):
        del at[key]
    elif kind == 1 and isinstance(at, dict):
        at[provider.ConsumeUnicode(8)] = at[key]
    elif kind == 2:
        at[key] = provider.ConsumeFloat()
    elif kind == 3:
        at[key] = provider.ConsumeUnicode(16)
    else:
        at[key] = json.loads(provider.PickValueInList(VALUES))


def _bytes(data: bytes, sound: Any) -> bytes:
    """The bytes alone, put into a sound document, or a changed document."""
    if len(data) < 4 or data[0] < 40:
        return data
    if data[0] < 120:
        text = json.dumps(sound).encode()
        start, length = (data[1] << 8 | data[2]) * len(text) >> 16, data[3] % 32
        return text[:start] + data[4:] + text[start + length :]
    return json.dumps(_changed(atheris.FuzzedDataProvider(data[1:]), sound), allow_nan=True).encode()


def report(data: bytes) -> None:
    """A report alone, in an index, shown, compared, and judged."""
    path = _folder() / "report.json"
    path.write_bytes(_bytes(data, _report()))
    schema_of(path)
    found = read_report(path)
    plain(found)
    to_markdown(found, compare(found, found))
    contents = CheckpointContents.of_report(found)
    judgement = judge(match(contents, contents), LoadedPolicy(load_policy(folder=Path("/nowhere")).policy), TODAY)
    judgement_markdown(judgement)
    to_sarif(judgement)
    if data[-1:] == b"i":
        write_index(path.parent)


def policy(data: bytes) -> None:
    """A policy as text, the written template with something in it, or one with other values, that then judges."""
    text, form = data, data[0] if len(data) > 4 else 0
    if form >= 180:
        provider = atheris.FuzzedDataProvider(data[2:])
        text = _toml(_changed(provider, _keys(data[1] % 16))).encode()
    elif form >= 100:
        sound = _template().encode()
        start, length = (data[1] << 8 | data[2]) * len(sound) >> 16, data[3] % 64
        text = sound[:start] + data[4:] + sound[start + length :]
    path = _folder() / ("pyproject.toml" if data[:1] == b"p" else "llmtrap.toml")
    path.write_bytes(text)
    judge(_pair(), LoadedPolicy(load_policy(path).policy), TODAY)


@cache
def _template() -> str:
    return template()


@cache
def _keys(rule: int) -> dict[str, Any]:
    """The template's keys for the gate, one of its rules, and an ignore."""
    gate = tomllib.loads(_template())["gate"]
    name, keys = list(gate["rules"].items())[rule]
    ignore = {"rule": name, "match": "layers.*.mlp.down", "reason": "a", "expires": "2026-12-31"}
    return {"gate": gate | {"rules": {name: keys}}, "ignore": [ignore]}


@cache
def _pair() -> MatchedSides:
    contents = CheckpointContents.of_report(Report.model_validate(_report()))
    return match(contents, contents)


def _toml(value: Any) -> str:
    """A document as TOML: tables below the first level are written in one line."""
    return "".join(f"{json.dumps(key)} = {_inline(item)}\n" for key, item in value.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value, default=str)


def journal(data: bytes) -> None:
    """Lines as they are, and records whose checksum is right."""
    path = _folder() / "journal.jsonl"
    provider = atheris.FuzzedDataProvider(data)
    lines = []
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        body = _bytes(provider.ConsumeBytes(200), provider.PickValueInList(_records()))
        checksum = f"{zlib.crc32(body):08x} ".encode() if provider.ConsumeIntInRange(0, 7) else b"00000000 "
        lines.append(checksum + body)
    path.write_bytes(b"\n".join(lines) + (b"\n" if provider.ConsumeBool() else b""))
    path.chmod(0o600)
    kept = Journal(path)
    kept.results({"key"})
    kept.plans()
    kept.beside("key")


@cache
def _records() -> list[dict[str, Any]]:
    """One record of each kind, as the journal writes them."""
    path = _folder() / "sound.jsonl"
    found = documents.trapped()
    kept = Journal(path)
    skipped = found.coverage.skipped[:1]
    kept.add_plan(PlanRecord("key", found.target, found.settings, skipped, (("a", "a.weight", "key", 1, 1),)))
    kept.add("key", found.matrices[0].model_copy(update={"spectrum": None, "traps": None}))
    return [json.loads(line.split(b" ", 1)[1]) for line in path.read_bytes().splitlines()]


class _Body(http.SyncByteStream):
    def __init__(self, content: bytes):
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


class _Hub:
    """Answers as the fuzzer says, by the library's own client."""

    def __init__(self) -> None:
        self.provider = atheris.FuzzedDataProvider(b"")
        self.data = b""
        os.environ["HF_ENDPOINT"] = "http://hub.invalid"
        huggingface_hub.set_client_factory(lambda: http.Client(transport=http.MockTransport(self.answer)))
        self.patience = RetryPolicy(0.001, threading.Event())

    def answer(self, request: http.Request) -> http.Response:
        provider = self.provider
        status = provider.PickValueInList([200, 200, 200, 200, 200, 200, 307, 401, 403, 404, 418, 429, 503])
        headers = {
            name: provider.PickValueInList(values)
            for name, values in _HEADERS.items()
            if provider.ConsumeIntInRange(0, 5) == 0
        }
        sound = _TREE if "/tree/" in str(request.url) else _LISTING
        return http.Response(status, headers=headers, stream=_Body(_bytes(self.data, sound)), request=request)


_FILE = {"rfilename": "model.safetensors", "size": 9, "blobId": "b" * 40, "lfs": {"sha256": "c" * 64, "size": 9}}
_LISTING: Any = {"id": "org/model", "sha": "a" * 40, "siblings": [_FILE, {"rfilename": "config.json"}]}
_TREE: Any = [{"type": "file", "path": "a", "size": 1, "oid": "b" * 40}, {"type": "directory", "path": "d"}]
_HEADERS = {
    "Link": ['</a>; rel="next"', '<http://other.invalid/>; rel="next"', "<", '<http://[::bad>; rel="next"', ";;"],
    "Location": ["/api/models/org/model", "http://other.invalid/", "file:///etc", "http://[::bad", "", "//"],
    "Content-Encoding": ["gzip", "identity"],
    "Retry-After": ["1", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "x", "-1"],
    "X-Error-Code": ["RepoNotFound", "GatedRepo", "RevisionNotFound", "EntryNotFound", "##[x]"],
    "X-Error-Message": ["Access to this resource is disabled.", "\x1b[2J"],
    "RateLimit": ['"api";r=0;t=' + "9" * 40, "x"],
}


@cache
def _hub() -> _Hub:
    return _Hub()


def hub(data: bytes) -> None:
    """The listing of a repository, with status, headers and redirects of any kind."""
    answering = _hub()
    answering.provider, answering.data = atheris.FuzzedDataProvider(data[-40:]), data[:-40]
    list_repository(HubTarget("org/model", None), "http://hub.invalid", answering.patience, 1.0)
