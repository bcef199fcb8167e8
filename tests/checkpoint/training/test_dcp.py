"""Folders of torch.distributed.checkpoint against PyTorch itself, written by one process and by two."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import CheckpointError, LlmtrapError, TargetError, UnsafeFileError

Q = "model.layers.0.self_attn.q_proj.weight"


def model() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(40, 12, generator=draw),
        Q: torch.randn(12, 12, generator=draw).to(torch.bfloat16),
        "model.layers.0.mlp.down_proj.weight": torch.randn(20, 12, generator=draw).T,
        "model.norm.weight": torch.ones(12, dtype=torch.float16),
        "step": torch.tensor(3),
    }


def write(folder: Path) -> dict[str, torch.Tensor]:
    weights = model()
    moments = {f"state.{name}.exp_avg": torch.ones_like(tensor) for name, tensor in weights.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process alone
        dcp.save({"model": weights, "optimizer": moments, "epoch": 2}, checkpoint_id=folder, no_dist=True)
    return weights


def test_what_one_process_wrote_is_read_bit_for_bit_and_the_optimizer_left_aside(tmp_path: Path) -> None:
    weights = write(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert [matrix.id for matrix in checkpoint.matrices] == [
        "embedding", "layers.0.attention.q", "layers.0.mlp.down",
    ]  # fmt: skip
    for matrix in checkpoint.matrices:
        expected = weights[matrix.tensor.removeprefix("model.")].float().numpy()
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)
    assert any("optimizer" in item.tensor and "optimizer" in item.reason for item in checkpoint.skipped)
    assert [file.name for file in checkpoint.catalogue.files] == ["__0_0.distcp"]


TWO = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
draw = torch.Generator().manual_seed(1)
tensors = {
    "model.layers.0.mlp.up_proj.weight": (torch.randn(7, 6, generator=draw), Shard(0)),
    "model.layers.0.mlp.down_proj.weight": (torch.randn(6, 9, generator=draw), Shard(1)),
    "model.layers.0.mlp.gate_proj.weight": (torch.randn(7, 6, generator=draw), Replicate()),
    "model.layers.0.mlp.experts.up": (torch.randn(3, 4, 5, generator=draw), Shard(0)),
}
dcp.save({name: distribute_tensor(t, mesh, [how]) for name, (t, how) in tensors.items()}, checkpoint_id=folder)
if rank == 0:
    torch.save({name: t for name, (t, _) in tensors.items()}, folder + "/../whole.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.thorough
def test_chunks_of_two_processes_make_the_whole_tensors(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", "-c", TWO]
    places = [str(folder), str(tmp_path / "meeting")]
    running = [subprocess.Popen([*command, str(rank), *places], env=environment) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    checkpoint = open_checkpoint(str(folder))
    assert len(checkpoint.catalogue.files) == 2
    assert len(checkpoint.matrices) == 6
    for matrix in checkpoint.matrices:
        expected = whole[matrix.tensor].numpy()
        expected = expected if matrix.index is None else expected[matrix.index]
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)
        pieces = np.concatenate([block.copy() for block in matrix.blocks(checkpoint.source, 10)])
        np.testing.assert_array_equal(pieces, expected)
    next(folder.glob("__1_*.distcp")).unlink()
    with pytest.raises(CheckpointError, match="a file that the metadata name is missing"):
        open_checkpoint(str(folder))


def test_a_trainers_folder_names_the_subfolder_that_holds_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-10" / "pytorch_model_fsdp_0")
    with pytest.raises(TargetError, match="only in the subfolder 'pytorch_model_fsdp_0'"):
        open_checkpoint(str(tmp_path / "checkpoint-10"))


def edited(folder: Path, old: bytes, new: bytes) -> None:
    path = folder / ".metadata"
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"__0_0.distcp", b"../_0.distcp", "a file that the metadata name is missing"),
        (b"float32", b"float16", "is not the one that the metadata describe"),
        (b"float32", b"floatXX", "lack a shape, a dtype or chunks"),
        (b"ChunkStorageMetadata", b"ChunkStorageMetadatX", "a chunk without a place"),
        (b"Metadata", b"MetadatX", "no metadata of torch.distributed.checkpoint"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    write(tmp_path)
    edited(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(str(tmp_path))


def test_metadata_that_would_run_code_are_refused_by_name(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch /tmp/never",)

    write(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        open_checkpoint(str(tmp_path))


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(LlmtrapError, match=r"and __0_0\.distcp has"):
        open_checkpoint(str(tmp_path))
