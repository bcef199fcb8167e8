"""GPT-OSS at its full shapes, from headers alone; and the same weights under its three ways of storing them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmtrap.checkpoint import Catalogue, TensorEntry, find_matrices, open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, SourceIdentity

H, Q, KV, GROUPS = 2880, 4096, 512, 90


def catalogue(layers: int, experts: int) -> Catalogue:
    """What the headers of a released checkpoint say: 19 tensors a layer and 3 more."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer in range(layers):
        at, moe = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp.experts"
        shapes |= {
            f"{at}.q_proj.weight": ("BF16", (Q, H)), f"{at}.q_proj.bias": ("BF16", (Q,)),
            f"{at}.k_proj.weight": ("BF16", (KV, H)), f"{at}.k_proj.bias": ("BF16", (KV,)),
            f"{at}.v_proj.weight": ("BF16", (KV, H)), f"{at}.v_proj.bias": ("BF16", (KV,)),
            f"{at}.o_proj.weight": ("BF16", (H, Q)), f"{at}.o_proj.bias": ("BF16", (H,)),
            f"{at}.sinks": ("BF16", (64,)),
            f"model.layers.{layer}.input_layernorm.weight": ("BF16", (H,)),
            f"model.layers.{layer}.post_attention_layernorm.weight": ("BF16", (H,)),
            f"model.layers.{layer}.mlp.router.weight": ("BF16", (experts, H)),
            f"model.layers.{layer}.mlp.router.bias": ("BF16", (experts,)),
            f"{moe}.gate_up_proj_blocks": ("U8", (experts, 2 * H, GROUPS, 16)),
            f"{moe}.gate_up_proj_scales": ("U8", (experts, 2 * H, GROUPS)),
            f"{moe}.gate_up_proj_bias": ("BF16", (experts, 2 * H)),
            f"{moe}.down_proj_blocks": ("U8", (experts, H, GROUPS, 16)),
            f"{moe}.down_proj_scales": ("U8", (experts, H, GROUPS)),
            f"{moe}.down_proj_bias": ("BF16", (experts, H)),
        }  # fmt: skip
    shapes |= dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), ("BF16", (201088, H)))
    shapes["model.norm.weight"] = ("BF16", (H,))
    tensors, position = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = int(np.prod(shape)) * (1 if dtype == "U8" else 2)
        tensors[name] = TensorEntry(name, dtype, shape, ByteRange("model.safetensors", position, position + size))
        position += size
    config = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}, "tie_word_embeddings": False}
    return Catalogue(SourceIdentity("gpt-oss", "folder"), tensors, (), config)


@pytest.mark.parametrize(
    ("layers", "experts", "stored", "size", "fused", "split"),
    [(24, 32, 459, 13_761_264_768, 1658, 2426), (36, 128, 687, 65_248_815_744, 9398, 14006)],
    ids=["20b", "120b"],
)
def test_every_matrix_of_the_released_models_is_found(
    layers: int, experts: int, stored: int, size: int, fused: int, split: int
) -> None:
    whole = catalogue(layers, experts)
    assert len(whole.tensors) == stored
    assert sum(entry.span.size for entry in whole.tensors.values()) == size
    found = find_matrices(whole)
    assert (found.family, len(found.matrices)) == ("gpt_oss", fused)
    parts = find_matrices(whole, split_fused=True)
    assert len(parts.matrices) == split
    for result in (found, parts):
        assert len({matrix.id for matrix in result.matrices}) == len(result.matrices)
        covered = {tensor for matrix in result.matrices for tensor in matrix.tensors}
        assert sorted([*covered, *(item.tensor for item in result.skipped)]) == sorted(whole.tensors)
    by_id = {matrix.id: matrix for matrix in found.matrices}
    last = by_id[f"layers.{layers - 1}.experts.{experts - 1}.gate_up"]
    assert (last.shape, sum(span.size for span in last.spans())) == ((5760, 2880), 8_812_800)
    assert sum(span.size for span in by_id[f"layers.0.experts.{experts - 1}.down"].spans()) == 4_406_400
    assert {item.reason for item in found.skipped} == {
        "one-dimensional (a bias, a norm or another vector)", "a stack of biases",
    }  # fmt: skip
    assert len(pickle.dumps(last)) < 2500  # one task to a worker carries one matrix, not the catalogue


@pytest.fixture
def twins(tmp_path: Path) -> dict[str, Path]:
    """The same random weights as MXFP4, as the BF16 copy that transformers saves, and under the original names."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: PLC0415  (slow to import)

    generator = torch.Generator().manual_seed(0)
    experts, hidden, heads, kv_heads, width = 2, 64, 4, 2, 8
    attention = {
        part: torch.randn(rows, hidden, generator=generator).bfloat16()
        for part, rows in (("q", heads * width), ("k", kv_heads * width), ("v", kv_heads * width))
    }
    out = torch.randn(hidden, heads * width, generator=generator).bfloat16()
    router = torch.randn(experts, hidden, generator=generator).bfloat16()
    embedding, unembedding = (torch.randn(50, hidden, generator=generator).bfloat16() for _ in range(2))
    packed = {
        name: (
            torch.randint(0, 256, (experts, rows, 2, 16), dtype=torch.uint8, generator=generator),
            torch.randint(115, 125, (experts, rows, 2), dtype=torch.uint8, generator=generator),
        )
        for name, rows in (("gate_up", 128), ("down", 64))
    }
    upcast = {name: convert_moe_packed_tensors(*(t.clone() for t in pair)) for name, pair in packed.items()}
    biases = {name: torch.ones(experts, rows).bfloat16() for name, rows in (("gate_up", 128), ("down", 64))}
    layer = "model.layers.0"
    common = {
        "model.embed_tokens.weight": embedding, "lm_head.weight": unembedding, f"{layer}.mlp.router.weight": router,
        f"{layer}.self_attn.o_proj.weight": out,
        **{f"{layer}.self_attn.{part}_proj.weight": weight for part, weight in attention.items()},
        **{f"{layer}.mlp.experts.{name}_proj_bias": bias for name, bias in biases.items()},
    }  # fmt: skip
    blocks, scales = (
        {f"{layer}.mlp.experts.{n}_proj_{s}": p[k] for n, p in packed.items()}
        for k, s in enumerate(("blocks", "scales"))
    )
    original = {
        "embedding.weight": embedding, "unembedding.weight": unembedding, "block.0.mlp.gate.weight": router,
        "block.0.attn.out.weight": out, "block.0.attn.qkv.weight": torch.cat(list(attention.values())),
        **{f"block.0.mlp.mlp{k}_weight.blocks": packed[name][0] for k, name in ((1, "gate_up"), (2, "down"))},
        **{f"block.0.mlp.mlp{k}_weight.scales": packed[name][1] for k, name in ((1, "gate_up"), (2, "down"))},
        **{f"block.0.mlp.mlp{k}_bias": biases[name] for k, name in ((1, "gate_up"), (2, "down"))},
    }  # fmt: skip
    folders = {name: tmp_path / name for name in ("mxfp4", "bf16", "original")}
    for folder in folders.values():
        folder.mkdir()
    save_file(common | blocks | scales, folders["mxfp4"] / "model.safetensors")
    dequantised = {f"{layer}.mlp.experts.{name}_proj": weight.contiguous() for name, weight in upcast.items()}
    save_file(common | dequantised, folders["bf16"] / "model.safetensors")
    save_file(original, folders["original"] / "model.safetensors")
    config = '{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}'
    (folders["original"] / "config.json").write_text(config)
    return folders


@pytest.mark.parametrize("split_fused", [False, True])
def test_the_bf16_copy_has_the_ids_and_values_of_its_mxfp4_base(twins: dict[str, Path], split_fused: bool) -> None:
    packed, upcast = (open_checkpoint(str(twins[name]), split_fused=split_fused) for name in ("mxfp4", "bf16"))
    assert packed.family == upcast.family == "gpt_oss"
    base = {matrix.id: matrix for matrix in packed.matrices}
    copy = {matrix.id: matrix for matrix in upcast.matrices}
    assert base.keys() == copy.keys()
    for id_, matrix in base.items():
        one, other = matrix.read(packed.source), copy[id_].read(upcast.source)
        np.testing.assert_array_equal(one, other.T if matrix.expert is not None else other)
    if split_fused:
        gate_up = open_checkpoint(str(twins["mxfp4"])).matrices
        (whole,) = [matrix for matrix in gate_up if matrix.id == "layers.0.experts.1.gate_up"]
        np.testing.assert_array_equal(
            base["layers.0.experts.1.gate"].read(packed.source), whole.read(packed.source)[0::2]
        )
        np.testing.assert_array_equal(
            base["layers.0.experts.1.up"].read(packed.source), whole.read(packed.source)[1::2]
        )


def test_the_original_names_give_the_same_matrices(twins: dict[str, Path]) -> None:
    named, original = (open_checkpoint(str(twins[name]), split_fused=True) for name in ("mxfp4", "original"))
    assert original.family == "gpt_oss"
    base = {matrix.id: matrix for matrix in named.matrices}
    assert {matrix.id for matrix in original.matrices} == base.keys()
    for matrix in original.matrices:
        np.testing.assert_array_equal(matrix.read(original.source), base[matrix.id].read(named.source))
    fused = open_checkpoint(str(twins["original"]))
    assert "layers.0.attention.qkv" in {matrix.id for matrix in fused.matrices}
    assert {item.tensor for item in fused.skipped} == {"block.0.mlp.mlp1_bias", "block.0.mlp.mlp2_bias"}


def test_without_head_counts_q_k_and_v_stay_together(twins: dict[str, Path]) -> None:
    (twins["original"] / "config.json").unlink()
    checkpoint = open_checkpoint(str(twins["original"]), split_fused=True)
    assert "layers.0.attention.qkv" in {matrix.id for matrix in checkpoint.matrices}
