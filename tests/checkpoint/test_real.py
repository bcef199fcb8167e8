"""Real trained weights through the whole package: names, tied embeddings, and twins of one model in four formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from llmtrap.checkpoint import open_checkpoint


def test_minilm_is_a_bert_whose_every_byte_is_read_as_safetensors_reads_it(minilm: Path) -> None:
    checkpoint = open_checkpoint(str(minilm))
    assert checkpoint.family == "bert"
    expected = {"embedding", "position", "embedding.token_type", "pooler"}
    for layer in range(6):
        expected |= {f"layers.{layer}.attention.{part}" for part in "qkvo"}
        expected |= {f"layers.{layer}.mlp.{part}" for part in ("up", "down")}
    assert {matrix.id for matrix in checkpoint.matrices} == expected
    assert {item.reason for item in checkpoint.skipped if "position_ids" in item.tensor} == {"integer buffer (I64)"}
    (file,) = checkpoint.catalogue.files
    with safe_open(minilm / file.name, "numpy") as tensors:
        for matrix in checkpoint.matrices:
            np.testing.assert_array_equal(matrix.read(checkpoint.source), tensors.get_tensor(matrix.tensor))


def test_smollm2_is_a_llama_with_a_tied_embedding(smollm2_bf16: Path) -> None:
    checkpoint = open_checkpoint(str(smollm2_bf16))
    assert (checkpoint.family, len(checkpoint.matrices)) == ("llama", 30 * 7 + 1)
    (tied,) = [matrix for matrix in checkpoint.matrices if matrix.aliases]
    assert (tied.id, tied.aliases, tied.shape) == ("embedding", ("unembedding",), (49152, 576))


@pytest.mark.parametrize("split_fused", [False, True])
def test_the_mxfp4_twin_holds_what_its_bf16_twin_holds(
    smollm2_mxfp4: Path, smollm2_mxfp4_bf16: Path, split_fused: bool
) -> None:
    packed = open_checkpoint(str(smollm2_mxfp4), split_fused=split_fused)
    upcast = open_checkpoint(str(smollm2_mxfp4_bf16), split_fused=split_fused)
    assert packed.family == upcast.family == "gpt_oss"
    copy = {matrix.id: matrix for matrix in upcast.matrices}
    assert {matrix.id for matrix in packed.matrices} == copy.keys()
    for matrix in packed.matrices:
        if matrix.layer in (0, 6):
            one, other = matrix.read(packed.source), copy[matrix.id].read(upcast.source)
            np.testing.assert_array_equal(one, other.T if matrix.expert is not None else other)


@pytest.mark.parametrize("block", [128, 64])
def test_the_fp8_twins_are_the_numbers_times_their_tiles(block: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"smollm2_fp8_{block}")
    checkpoint = open_checkpoint(str(folder))
    scaled = [matrix for matrix in checkpoint.matrices if matrix.encoding == f"F8_E4M3 blocks {block}x{block}"]
    assert len(scaled) == 30 * 7
    for matrix in scaled[:7]:
        weight, scale = matrix.stored.parts
        with safe_open(folder / weight.span.file, "torch") as file:
            values = file.get_tensor(weight.name).float()
        with safe_open(folder / scale.span.file, "torch") as file:
            tiles = file.get_tensor(scale.name).float()
        spread = tiles.repeat_interleave(block, 0).repeat_interleave(block, 1)[: values.shape[0], : values.shape[1]]
        torch.testing.assert_close(torch.from_numpy(matrix.read(checkpoint.source)), values * spread, rtol=0, atol=0)
