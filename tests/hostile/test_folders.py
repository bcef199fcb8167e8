"""Folders that lie: indexes that lead elsewhere, links, FIFOs, absurd configurations, files that change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.raw_safetensors import sparse

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import CheckpointError, LlmtrapError, TargetError, UnsafeFileError

Refused = Callable[..., LlmtrapError]
INDEX = "model.safetensors.index.json"
ONE = {"a.weight": np.ones((3, 2), np.float32)}


def write_index(folder: Path, file: str) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a.weight": file}}))


@pytest.mark.parametrize(
    "file",
    [
        "../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors", "./model.safetensors", "..", "",
        "C:/outside.safetensors", "\\\\server\\share.safetensors", "a//b.safetensors", "\x1b[2Jx/../y.safetensors",
    ],
)  # fmt: skip
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path, refused: Refused, file: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(ONE, tmp_path / "outside.safetensors")
    save_file(ONE, folder / "model.safetensors")
    write_index(folder, file)
    error = refused(UnsafeFileError, folder)
    assert error.file == INDEX
    assert "not a plain path inside the folder" in error.problem


@pytest.mark.parametrize("absolute", [True, False])
def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path, refused: Refused, absolute: bool) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(ONE, tmp_path / "outside.safetensors")
    (folder / "1.safetensors").symlink_to(tmp_path / "outside.safetensors" if absolute else "../outside.safetensors")
    write_index(folder, "1.safetensors")
    error = refused(UnsafeFileError, folder)
    assert error.message == (
        f"1.safetensors: the shard that {INDEX} names is a link that leads out of the checkpoint's folder, "
        f"to {tmp_path / 'outside.safetensors'}. "
        "Put a copy of the file in its place, or give the folder that a link leads to as the target"
    )


@pytest.mark.parametrize("name", ["model.safetensors", INDEX])
def test_the_weights_or_the_index_as_a_link_out_of_the_folder_are_refused(
    tmp_path: Path, refused: Refused, name: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(ONE, tmp_path / "outside")
    (folder / name).symlink_to("../outside")
    error = refused(UnsafeFileError, folder)
    assert error.file == name
    assert "a link that leads out" in error.problem


def test_a_configuration_behind_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(ONE, folder / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (folder / "config.json").symlink_to("../config.json")
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.catalogue.config, checkpoint.family) == ({}, "generic")
    assert [item.tensor for item in checkpoint.skipped] == ["config.json (file)"]


def test_a_fifo_in_the_weights_place_does_not_hang(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    error = refused(UnsafeFileError)
    assert (error.file, error.problem) == ("model.safetensors", "the weights are not a regular file")


def test_a_fifo_beside_the_weights_is_left_aside(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    assert len(checkpoint.matrices) == 1
    assert [(item.tensor, item.reason) for item in checkpoint.skipped] == [
        ("pipe.safetensors (file)", "not a regular file")
    ]


@pytest.mark.parametrize(
    ("name", "what"), [("config.json", "a configuration"), (INDEX, "an index")]
)  # fmt: skip
def test_a_gigabyte_of_configuration_is_not_read(tmp_path: Path, refused: Refused, name: str, what: str) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 30)
    error = refused(CheckpointError)
    assert error.file == name
    assert f"1073741824 bytes are too many for {what}" in error.problem


@pytest.mark.parametrize(
    "config",
    [
        "[]", '"text"', "{", '{"a":1,"a":2}', '{"a":' * 100_000, '{"model_type":NAN}', "", "\ufeff\ufeff{}",
    ],
)  # fmt: skip
def test_a_configuration_that_is_no_plain_object_is_refused(tmp_path: Path, refused: Refused, config: str) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    assert refused(CheckpointError).file == "config.json"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": ["llama"], "architectures": "x", "text_config": 5, "quantization_config": [1]},
        {"model_type": {"a": 1}, "architectures": [1, None], "tie_word_embeddings": 3},
        {"model_type": "phi3", "num_attention_heads": "four", "num_key_value_heads": -2, "head_dim": 1e9},
        {"model_type": "phi3", "num_attention_heads": True, "num_key_value_heads": [2]},
        {"model_type": "phi3", "num_attention_heads": 1 << 60, "num_key_value_heads": 3},
        {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 1 << 39}},
        {"model_type": "dbrx", "ffn_config": "none"},
    ],
)
def test_a_configuration_of_wrong_types_and_absurd_counts_changes_nothing(tmp_path: Path, config: object) -> None:
    save_file(
        {
            "model.layers.0.self_attn.qkv_proj.weight": np.ones((6, 2), np.float32),
            "transformer.blocks.0.ffn.experts.mlp.w1": np.ones((6, 2), np.float32),
        },
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(str(tmp_path), split_fused=True)
    assert len(checkpoint.matrices) == 2
    for matrix in checkpoint.matrices:
        assert matrix.read(checkpoint.source).shape == (6, 2)


@pytest.mark.parametrize(
    "index",
    [
        {}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a.weight": 5}}, {"weight_map": {"a.weight": None}},
        {"weight_map": {"a.weight": ["model.safetensors"]}}, [],
    ],
)  # fmt: skip
def test_an_index_without_a_map_of_names_to_files_is_refused(tmp_path: Path, refused: Refused, index: object) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert refused(CheckpointError).file == INDEX


def test_an_index_that_names_a_pickle_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x80\x04.")
    write_index(tmp_path, "weights.bin")
    assert "weights.bin, which is no .safetensors file" in refused(UnsafeFileError).problem


def test_an_index_that_names_itself_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for file in (INDEX, "folder.safetensors"):
        write_index(tmp_path, file)
        with pytest.raises((CheckpointError, TargetError)):
            open_checkpoint(str(tmp_path))


def test_an_empty_folder_and_an_empty_path_are_refused(tmp_path: Path, refused: Refused) -> None:
    assert refused(TargetError).problem == "no weights here"
    with pytest.raises(TargetError):
        open_checkpoint("")
    with pytest.raises(TargetError):
        open_checkpoint("x" * 5000)


def test_file_names_that_are_no_text_are_left_aside(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    for name in (b"bad\xff.safetensors", b"esc\x1b[2J.safetensors"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    checkpoint = open_checkpoint(str(tmp_path))
    assert len(checkpoint.matrices) == 1
    assert all(f"{item.tensor}{item.reason}".isprintable() for item in checkpoint.skipped)
    assert len(checkpoint.skipped) == 2


def test_a_shard_that_is_cut_short_after_planning_is_an_error_not_a_crash(tmp_path: Path) -> None:
    sparse(tmp_path / "model.safetensors", {"a.weight": ("F32", (1 << 12, 1 << 10))})
    checkpoint = open_checkpoint(str(tmp_path))
    blocks = checkpoint.matrices[0].blocks(checkpoint.source, 1 << 16)
    next(blocks)
    os.truncate(tmp_path / "model.safetensors", 1 << 20)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the file (ended|changed)"):
        list(blocks)


def test_folders_nested_without_end_are_not_followed(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    deep = tmp_path
    for _ in range(40):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "model.safetensors").write_bytes(b"")
    checkpoint = open_checkpoint(str(tmp_path))
    assert len(checkpoint.matrices) == 1
    assert any("not searched" in item.reason for item in checkpoint.skipped)
