"""Reading a report back: every way in which a file is not one has its own words."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents

from llmtrap.errors import TargetError
from llmtrap.report.json import to_json
from llmtrap.report.migrate import older_names
from llmtrap.report.read import read_report
from llmtrap.report.verdict import judge


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
    later = text.replace("llmtrap.report/2", "llmtrap.report/3")
    with pytest.raises(TargetError, match=r"schema 'llmtrap\.report/3', and this llmtrap reads 'llmtrap\.report/2'"):
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


def test_a_report_of_the_first_schema_is_read_and_claims_no_more_than_it_knew() -> None:
    path = Path(__file__).parent / "fixtures" / "report-1.json"
    was = json.loads(path.read_text(encoding="utf-8"))
    assert was["schema"] == "llmtrap.report/1"

    report = read_report(path)

    now = json.loads(to_json(report))
    for before, after in zip(was["matrices"], now["matrices"], strict=True):
        # Names are those of today: test_an_older_report_has_the_names_of_today.
        names = ("id", "layer", "role", "expert")
        assert _of_the_same_keys({**after, **{name: before[name] for name in names}}, before) == before
    assert {key: now["target"][key] for key in was["target"]} == was["target"]
    assert [(item.tensor, item.kind) for item in report.coverage.skipped] == [
        ("model.norm.weight", "one_dimensional"),
        ("embeddings.position_ids", "buffer"),
        ("vision.conv.weight", "unmeasured"),
        ("layers.9.mlp.up", "on_request"),
        ("pytorch_model.bin (file)", "file_not_read"),
    ]
    assert (report.coverage.counts, report.coverage.share) == (None, None)
    assert report.summary.level == "partly_measured"
    answers = judge(report)
    assert answers.word == "Partly measured"
    assert "older schema" in answers.coverage
    assert answers.unmeasured == ("vision.conv.weight", "layers.2.mlp.down.weight")


def _of_the_same_keys(after: Any, before: Any) -> Any:
    """What a later schema has under the keys of an older one: what it added is null or its default there."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {key: _of_the_same_keys(after[key], value) for key, value in before.items()}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [_of_the_same_keys(later, earlier) for later, earlier in zip(after, before, strict=True)]
    return after


@pytest.mark.parametrize(
    ("non_finite", "matrices", "with_traps", "left_out", "level"),
    [
        (1, 2, 1, (), "broken"),
        (0, 0, 0, (), "nothing_measured"),
        (0, 2, 1, ("x",), "unusual"),
        (0, 2, 0, ("x",), "partly_measured"),
        (0, 2, 0, (), "usual"),
    ],
)
def test_the_level_of_an_older_report(
    tmp_path: Path, non_finite: int, matrices: int, with_traps: int, left_out: tuple[str, ...], level: str
) -> None:
    path = Path(__file__).parent / "fixtures" / "report-1.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    old["summary"] |= {"non_finite": non_finite, "matrices": matrices, "with_traps": with_traps}
    old["coverage"] |= {"failed": [], "skipped": [{"tensor": name, "reason": "three-dimensional"} for name in left_out]}
    assert read_report(write(tmp_path, json.dumps(old))).summary.level == level


def test_an_older_report_that_breaks_its_schema_is_explained(tmp_path: Path) -> None:
    path = Path(__file__).parent / "fixtures" / "report-1.json"
    old = {**json.loads(path.read_text(encoding="utf-8")), "surprise": 1}
    with pytest.raises(TargetError, match="does not keep to its schema at 'surprise'"):
        read_report(write(tmp_path, json.dumps(old)))


# -- documents of strangers -----------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "circle.json").symlink_to("circle.json")
    for name in ("fifo.json", "zero.json"):
        with pytest.raises(TargetError, match="not a regular file"):
            read_report(tmp_path / name)
    with pytest.raises(TargetError, match="go in a circle"):
        read_report(tmp_path / "circle.json")
    with pytest.raises(TargetError, match="null character"):
        read_report(tmp_path / "a\0.json")


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 2**63, -1, 1.5, "7"], ids=["huge", "-huge", "2^63", "-1", "1.5", "text"]
)
@pytest.mark.parametrize(
    "where",
    ["matrices.0.layer", "matrices.0.shape.0", "matrices.0.alpha.tail", "matrices.0.traps.centred", "settings.shuffles",
     "target.files.0.bytes", "summary.peak_rss_bytes", "coverage.planned", "coverage.failed.0.parameters"],
)  # fmt: skip
def test_counts_are_numbers_that_a_machine_can_hold(tmp_path: Path, text: str, where: str, value: object) -> None:
    document = json.loads(text)
    at: Any = document
    *path, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    for part in path:
        at = at[part]
    at[last] = value
    with pytest.raises(TargetError, match=f"does not keep to its schema at '{re.escape(where)}'"):
        read_report(write(tmp_path, json.dumps(document)))


def test_no_report_asks_for_a_billion_shuffles(tmp_path: Path, text: str) -> None:
    document = json.loads(text)
    document["settings"]["shuffles"] = 1_000_000_000
    with pytest.raises(TargetError, match=r"at 'settings\.shuffles'"):
        read_report(write(tmp_path, json.dumps(document)))


HEAD = '{"schema":"llmtrap.report/2","tool":{"name":"a","version":"b"},'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + '"matrices":[' + "1," * 2_000_000 + "1]}", r"schema at 'matrices\.0'"),
        (HEAD + '"matrices":[{"aliases":[' + "1," * 1_500_000 + "1]}]}", "larger than any matrix without traps"),
        (HEAD + '"matrices":[{"traps":{"x":[' + "[]," * 1_000_000 + '[]],"found":[]}}]}', "larger than this part"),
        (HEAD + '"matrices":[{"traps":{"found":[' + "[]," * 1_000_000 + "[]]}}]}", r"schema at 'matrices\.0\."),
        (HEAD + '"matrices":[{"aliases":[' + "[]," * 80_000 + "[]]}]}", r"schema at 'matrices\.0\."),
        (HEAD + '"matrices":[{' + ",".join(f'"{n}":0' for n in range(300_000)) + "}]}", "an object has over 64 keys"),
        (HEAD + ",".join(f'"{n}":0' for n in range(300_000)) + "}", "larger than this part"),
        (HEAD + '"matrices":[[' + "[]," * 2_000_000 + "[]]]}", "larger than this part"),
        (HEAD + '"coverage":{"skipped":[' + "{}," * 1_000_000 + "{}]}}", r"schema at 'coverage\.skipped\.0"),
        (HEAD + '"tool":' + "[" * 200_000, "given twice"),
        (HEAD + '"x":"' + "y" * 5_000_000 + '"}', "larger than this part"),
        ("[" + "[]," * 2_000_000 + "[]]", "no report of llmtrap"),
        ("{" + ",".join(f'"{n}":{{}}' for n in range(500_000)) + "}", "no report of llmtrap"),
        (HEAD + '"matrices":[],"matrices":[]}', "schema at 'matrices': the key is given twice"),
        (HEAD + '"x":0} more', "this is no|not JSON"),
    ],
    ids=lambda value: value[-24:] if len(value) < 60 else value[30:60] + value[-10:],
)
def test_what_is_wrong_is_found_at_little_cost(tmp_path: Path, content: str, words: str, thorough: bool) -> None:
    path = write(tmp_path, content)
    if thorough or len(content) < 1_000_000:  # counting every allocation takes ten times as long as they do
        tracemalloc.start()
    try:
        with pytest.raises(TargetError, match=words):
            read_report(path)
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()


def test_a_report_takes_hardly_more_memory_than_its_bytes(tmp_path: Path) -> None:
    report = documents.gpt_oss_20b()
    path = tmp_path / "report.json"
    # On one line, as other tools write JSON: where a matrix ends is not told by lines
    document = report.to_json_dict()
    trap = next(m["traps"]["found"][0] for m in document["matrices"] if m["traps"]["found"])
    document["matrices"][0]["traps"]["found"] = [trap] * 3000
    path.write_text(json.dumps(document), encoding="ascii")
    tracemalloc.start()
    try:
        back = read_report(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size + 10e6
    finally:
        tracemalloc.stop()
    assert back.to_json_dict() == document
    assert back.matrices[1:] == report.matrices[1:]


def test_an_older_report_has_the_names_of_today(tmp_path: Path) -> None:
    """Reports of the first schema named the matrices of models without a table after their modules."""
    older = {
        "layers.0.mlp.up": "model.layers.0.mlp.up_proj.weight",
        "model.visual.blocks.0.attn.qkv": "model.visual.blocks.0.attn.qkv.weight",
        "embedding.position": "model.wpe.weight",
        "model.layers.1.moe.experts.gate.0": "model.layers.1.moe.experts.gate_proj",
        "model.layers.1.moe.experts.gate.1": "model.layers.1.moe.experts.gate_proj",
        "layers.2.attention.q": "model.layers.2.self_attn.qkv_proj.weight",
        "layers.2.attention.k": "model.layers.2.self_attn.qkv_proj.weight",
    }
    matrices = []
    for id_, tensor in older.items():
        expert = int(id_[-1]) if "experts" in id_ else None
        one = documents.matrix(id_).model_copy(
            update={"tensor": tensor, "expert": expert, "role": id_.rpartition(".")[2], "shape": (64, 64)}
        )
        matrices.append(one)
    named = older_names(matrices, "generic")
    assert [(m.id, m.part, m.layer, m.role, m.expert) for m in named] == [
        ("layers.0.mlp.up", "text", 0, "mlp.up", None),
        ("vision.layers.0.attention.qkv", "vision", 0, "attention.qkv", None),
        ("position", "text", None, "position", None),
        ("layers.1.experts.0.gate", "text", 1, "experts.gate", 0),
        ("layers.1.experts.1.gate", "text", 1, "experts.gate", 1),
        ("layers.2.attention.q", "text", 2, "attention.q", None),
        ("layers.2.attention.k", "text", 2, "attention.k", None),
    ]
    twice = [matrices[0], matrices[0].model_copy(update={"id": "another"})]
    assert older_names(twice, "") == twice
