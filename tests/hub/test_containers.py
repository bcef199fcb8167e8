"""Files of torch.save and GGUF over the wire: the numbers of the local file, for its matrices and headers alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from tests.support import hub_faults as faults
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint import Checkpoint, open_checkpoint


def read(checkpoint: Checkpoint) -> dict[str, bytes]:
    values = {matrix.id: matrix.read(checkpoint.source).tobytes() for matrix in checkpoint.matrices}
    checkpoint.source.close()
    return values


def write_bin(folder: Path) -> Path:
    """Six matrices of 128 KiB, one of them transposed, and an optimizer's state twice as large."""
    draw = torch.Generator().manual_seed(0)
    state = {f"model.layers.{k}.mlp.up_proj.weight": torch.randn(256, 128, generator=draw) for k in range(5)}
    state["model.layers.5.mlp.up_proj.weight"] = torch.randn(128, 256, generator=draw).t()
    torch.save({"state_dict": state, "optimizer": torch.zeros(1 << 19)}, folder / "pytorch_model.bin")
    return folder


def test_a_pytorch_checkpoint_from_a_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/old", write_bin(tmp_path))
    assert read(open_checkpoint("org/old")) == read(open_checkpoint(str(tmp_path)))
    assert hub.bytes_sent < 6 * (128 << 10) + 100_000, "the optimizer's state was not fetched"


def test_listing_a_pytorch_checkpoint_fetches_no_weights(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/old", write_bin(tmp_path))
    assert len(open_checkpoint("org/old").matrices) == 6
    assert hub.bytes_sent < 100_000


def test_a_gguf_from_a_hub_that_fails_at_times(hub: LoopbackHub, tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 60, (2048, 16 * 34), dtype=np.uint8)
    name = b"blk.0.ffn_up.weight"
    head = b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, len(name)) + name + struct.pack("<IQQIQ", 2, 512, 2048, 8, 0)
    (tmp_path / "model.gguf").write_bytes(head + bytes(-len(head) % 32) + blocks.tobytes())
    hub.rule = faults.at_random(0.2, [faults.Drop(None), faults.Status(503)], seed=1)
    hub.add("org/gguf", tmp_path)
    found = read(open_checkpoint("org/gguf"))
    assert found == read(open_checkpoint(str(tmp_path)))
    assert list(found) == ["layers.0.mlp.up"]
