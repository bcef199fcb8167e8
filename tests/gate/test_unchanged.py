"""Unchanged matrices: found by their bytes or their file's digest, and never measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support import edits

from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
from llmtrap.checkpoint.matrices import Stripes
from llmtrap.checkpoint.sources import ByteRange, FileEntry
from llmtrap.gate.unchanged import (
    CHUNK_BYTES,
    FIRST_BYTES,
    same_files,
    stored_alike,
    unchanged_by_digest,
    unchanged_matrices,
)
from llmtrap.report.document import File, Target

Opened = Callable[[dict[str, np.ndarray], str], Checkpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def of(tensors: dict[str, np.ndarray], name: str) -> Checkpoint:
        (tmp_path / name).mkdir(exist_ok=True)
        save_file(tensors, tmp_path / name / "model.safetensors")
        return open_checkpoint(str(tmp_path / name))

    return of


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"a.weight": (700, 513), "b.weight": (64, 65), "c.weight": (3, 1), "stack.weight": (4, 32, 48)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}


def same(one: Checkpoint, other: Checkpoint) -> set[str]:
    theirs = {matrix.id: matrix for matrix in other.matrices}
    pairs = [(matrix, theirs[matrix.id]) for matrix in one.matrices if matrix.id in theirs]
    return set(unchanged_matrices(pairs, one.source, other.source, threads=2))


def test_equal_bytes_are_unchanged_whatever_file_order_or_shard_holds_them(opened: Opened, tmp_path: Path) -> None:
    one = opened(drawn(), "one")
    (tmp_path / "two").mkdir()
    tensors = drawn()
    save_file({"b.weight": tensors["b.weight"]}, tmp_path / "two" / "x-00001.safetensors")
    save_file({n: t for n, t in tensors.items() if n != "b.weight"}, tmp_path / "two" / "x-00002.safetensors")
    two = open_checkpoint(str(tmp_path / "two"))
    assert same(one, two) == {matrix.id for matrix in one.matrices}


@pytest.mark.parametrize("place", [0, 1, 262143, 262144, 359099])
def test_one_bit_anywhere_is_a_change_of_that_matrix_alone(opened: Opened, place: int) -> None:
    changed = drawn()
    assert changed["a.weight"].nbytes > CHUNK_BYTES
    changed["a.weight"].reshape(-1).view(np.uint32)[place] ^= 1
    one, two = opened(drawn(), "one"), opened(changed, "two")
    assert same(one, two) == {matrix.id for matrix in one.matrices} - {"a"}


def test_the_last_odd_bytes_count_too(opened: Opened) -> None:
    odd = {"h.weight": np.arange(15 * 9, dtype=np.float16).reshape(15, 9)}
    other = {"h.weight": odd["h.weight"].copy()}
    other["h.weight"].view(np.uint8)[-1, -1] ^= 1
    assert same(opened(odd, "one"), opened(other, "two")) == set()


def test_equal_values_in_another_format_are_a_change(opened: Opened) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    wide, narrow = opened({"w.weight": values}, "one"), opened({"w.weight": values.astype(ml_dtypes.bfloat16)}, "two")
    assert same(wide, narrow) == set()


def test_an_expert_of_a_stack_is_compared_by_itself(smollm2_mxfp4: Path, tmp_path: Path) -> None:
    copy = edits.copy_of(smollm2_mxfp4, tmp_path / "copy")
    edits.edit_mxfp4(copy, "model.layers.3.mlp.experts.down_proj", 2, edits.scaled(2.0))
    edits.edit(copy, "model.layers.5.self_attn.q_proj.weight", edits.scaled(1.5))
    one, two = open_checkpoint(str(copy)), open_checkpoint(str(smollm2_mxfp4))
    changed = {matrix.id for matrix in one.matrices} - same(one, two)
    assert changed == {"layers.3.experts.2.down", "layers.5.attention.q"}


def test_a_file_that_shrinks_counts_as_changed(opened: Opened, tmp_path: Path) -> None:
    one, two = opened(drawn(), "one"), opened(drawn(), "two")
    path = tmp_path / "one" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert same(one, two) == set()


def test_parts_of_one_comparison_stop_at_the_first_difference(opened: Opened) -> None:
    changed = drawn()
    changed["a.weight"][0, 0] += 1
    one, two = opened(drawn(), "one"), opened(changed, "two")
    read: list[int] = []

    class Counting:
        def __init__(self, source) -> None:
            self.source = source

        def open(self, span: ByteRange):
            read.append(span.size)
            return self.source.open(span)

    (mine,) = [m for m in one.matrices if m.id == "a"]
    (theirs,) = [m for m in two.matrices if m.id == "a"]
    assert not unchanged_matrices([(mine, theirs)], Counting(one.source), two.source)
    assert read == [FIRST_BYTES]


def test_small_matrices_side_by_side_are_compared_at_once_and_a_changed_one_alone_stands_out(opened: Opened) -> None:
    tensors = {f"{k:03}.weight": np.full((8, 8), k, np.float32) for k in range(300)}
    changed = tensors | {"170.weight": np.full((8, 8), 0.5, np.float32)}
    read: list[int] = []

    class Counting:
        def __init__(self, source) -> None:
            self.source = source

        def open(self, span: ByteRange):
            read.append(span.size)
            return self.source.open(span)

    for other, expected in ((tensors, 300), (changed, 299)):
        read.clear()
        one, two = opened(tensors, f"one-{expected}"), opened(other, f"two-{expected}")
        pairs = list(zip(one.matrices, two.matrices, strict=True))
        told: list[WeightMatrix] = []
        same = unchanged_matrices(pairs, Counting(one.source), two.source, 2, told.append)
        assert len(same) == expected
        assert {matrix.id for matrix in told} == {matrix.id for matrix in one.matrices}
        assert len(told) == 300
        assert (len(read) < 10) is (expected == 300)


def test_digests_of_a_report_stand_for_its_files(opened: Opened, tmp_path: Path) -> None:
    checkpoint = opened(drawn(), "one")
    content = (tmp_path / "one" / "model.safetensors").read_bytes()
    right = f"sha256:{hashlib.sha256(content).hexdigest()}"
    everything = {matrix.id for matrix in checkpoint.matrices}
    for digest, size, expected in (
        (right, len(content), everything),
        (right[:-1] + ("0" if right[-1] != "0" else "1"), len(content), set()),
        (right, len(content) - 1, set()),
        (None, len(content), set()),
        ("git:" + "0" * 40, len(content), set()),
    ):
        file = File(path="model.safetensors", bytes=size, digest=digest)
        target = Target(name="x", kind="hub", revision=None, family="generic", files=(file,), encodings=())
        found = unchanged_by_digest(checkpoint.matrices, checkpoint.catalogue, checkpoint.source, target)
        assert found == expected


def test_a_digest_that_matches_stands_for_its_own_file_alone(tmp_path: Path) -> None:
    shards = {f"model-0000{k}-of-00002.safetensors": f"{name}.weight" for k, name in ((1, "a"), (2, "b"))}
    files = []
    for shard, name in shards.items():
        save_file({name: drawn()[name]}, tmp_path / shard)
        content = (tmp_path / shard).read_bytes() if name == "a.weight" else b"another content"
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        files.append(File(path=shard, bytes=(tmp_path / shard).stat().st_size, digest=digest))
    index = {"metadata": {}, "weight_map": {name: shard for shard, name in shards.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    target = Target(name="x", kind="hub", revision=None, family="generic", files=tuple(files), encodings=())
    checkpoint = open_checkpoint(str(tmp_path))
    found = unchanged_by_digest(checkpoint.matrices, checkpoint.catalogue, checkpoint.source, target)
    assert {matrix.id for matrix in checkpoint.matrices} == {"a", "b"}
    assert found == {"a"}


def test_files_are_the_same_by_size_and_sha256_and_whatever_their_names() -> None:
    one, other = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    mine = [FileEntry("a", 8, one), FileEntry("b", 8, other), FileEntry("c", 8, "etag"), FileEntry("d", 8)]
    theirs = [FileEntry("x", 8, one), FileEntry("b", 9, other), FileEntry("c", 8, "etag"), FileEntry("d", 8)]
    assert same_files(mine, theirs) == {("a", "x")}


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_parts_of_a_fused_tensor_are_alike_where_they_take_the_same_rows_and_columns(opened: Opened, side: str) -> None:
    (whole,) = (matrix for matrix in opened(drawn(), "one").matrices if matrix.id == "b")
    even, odd = (replace(whole, **{side: Stripes(offset, stride=2, block=1, count=32)}) for offset in (0, 1))
    assert stored_alike(even, even)
    assert not stored_alike(even, odd)
    assert not stored_alike(even, whole)
