"""The maker of real-size input: the published files to the byte, no matrix twice, exactly the planted traps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.make_gptoss import SIZES, make_checkpoint
from benchmarks.planted import plan_traps
from benchmarks.shard_files import header_bytes
from safetensors import safe_open

import llmtrap
from llmtrap.demo import DemoManifest
from llmtrap.demo.layout import GptOssShape, cut_shards, tensor_specs

SMALL = GptOssShape(
    layers=3, experts=4, hidden=512, intermediate=512, heads=10, kv_heads=4, head_dim=64, vocabulary=9000
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gptoss") / "checkpoint"
    make_checkpoint(path, SMALL, seed=3, max_shard_bytes=9_000_000)
    return path


def test_the_20b_files_have_their_published_lengths() -> None:
    shards = cut_shards(tensor_specs(SIZES["20b"]))

    lengths = [len(header_bytes(shard)[0]) + sum(spec.nbytes for spec in shard) for shard in shards]

    assert lengths == [4_792_272_488, 4_798_702_184, 4_170_342_232]


def test_the_full_sizes_get_all_their_traps_in_different_matrices() -> None:
    for shape in SIZES.values():
        plan = plan_traps(shape, seed=0)
        parts = {name.split(".")[2] if "." in name else name for name in plan}

        assert len(plan) == 44
        assert parts == {"experts", "attention", "embedding", "unembedding"}
        assert {cause for cause, _ in plan.values()} == {"entry", "mean_shift", "heavy_tail"}


def test_safetensors_reads_every_file(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                found[name] = shard.name
    assert found == index
    assert set(found) == {spec.name for spec in tensor_specs(SMALL)}


def test_no_two_experts_are_equal_and_none_is_blank(folder: Path) -> None:
    seen: set[bytes] = set()
    count = 0
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if name.endswith("_blocks"):
                    for expert in file.get_tensor(name):
                        assert len(set(expert.tobytes())) > 200
                        seen.add(expert.tobytes())
                        count += 1
    assert len(seen) == count == SMALL.layers * SMALL.experts * 2


def test_an_audit_finds_exactly_what_was_planted(folder: Path) -> None:
    planted = {trap.matrix: trap for trap in DemoManifest.read(folder).traps}

    report = llmtrap.audit(str(folder))

    found = {matrix.id: matrix.traps for matrix in report.matrices if matrix.traps and matrix.traps.count}
    assert set(found) == set(planted)
    for name, traps in found.items():
        trap = planted[name]
        assert {t.cause.kind for t in traps.found} == {trap.cause}, name
        if trap.cause == "entry":
            cause = traps.found[0].cause
            assert (cause.row, cause.column, cause.value) == (trap.row, trap.column, trap.value)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(FileExistsError, match="is not empty"):
        make_checkpoint(tmp_path, SMALL)
