"""Reading a report back: every way in which a file is not one has its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import documents

from llmtrap.errors import TargetError
from llmtrap.report.json import to_json
from llmtrap.report.read import read_report


@pytest.fixture(scope="module")
def text() -> str:
    return to_json(documents.partial())


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "report.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"none\.json: there is no such report"):
        read_report(tmp_path / "none.json")
    with pytest.raises(TargetError, match="this is a folder, not a report"):
        read_report(tmp_path)


def test_too_large_is_not_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(TargetError, match="over 100 bytes, more than any report"):
        read_report(write(tmp_path, text), limit=100)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_cut_short(tmp_path: Path, text: str, share: float) -> None:
    # Cut between two tokens, so that it is the end that is missing and nothing else.
    cut = text[: text.rindex(",", 0, int(len(text) * share)) + 1]
    with pytest.raises(TargetError, match=f"the file is cut short: the document does not end by byte {len(cut):,}"):
        read_report(write(tmp_path, cut))


@pytest.mark.parametrize("content", ["", "not json", b"\xff\xfe\x00", "[" * 100_000, "{'a': 1}"])
def test_not_json(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(TargetError, match="this is not JSON"):
        read_report(write(tmp_path, content))


@pytest.mark.parametrize("content", ["[]", "1", "null", '{"weight_map": {}}', '{"schema": 7}', '{"schema": "x/1"}'])
def test_json_of_something_else(tmp_path: Path, content: str) -> None:
    with pytest.raises(TargetError, match="this is JSON, but not a report of llmtrap"):
        read_report(write(tmp_path, content))


def test_another_schema_version(tmp_path: Path, text: str) -> None:
    later = text.replace("llmtrap.report/1", "llmtrap.report/2")
    with pytest.raises(TargetError, match=r"schema 'llmtrap\.report/2', and this llmtrap reads 'llmtrap\.report/1'"):
        read_report(write(tmp_path, later))


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("matrices", None, "matrices"),
        ("summary", {}, r"summary\.verdict"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_report_that_breaks_its_schema(tmp_path: Path, text: str, key: str, value: object, where: str) -> None:
    document = {**json.loads(text), key: value}
    with pytest.raises(TargetError, match=f"does not keep to its schema at '{where}'"):
        read_report(write(tmp_path, json.dumps(document)))


@pytest.mark.parametrize("number", ["NaN", "1e999", '"7"', "true"])
def test_numbers_must_be_finite_numbers(tmp_path: Path, text: str, number: str) -> None:
    path = write(tmp_path, text.replace('"seconds": 41.0', f'"seconds": {number}'))
    with pytest.raises(TargetError, match=r"'summary\.seconds'|not JSON"):
        read_report(path)
