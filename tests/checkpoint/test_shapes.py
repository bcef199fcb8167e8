"""Which tensors are matrices, stacks, kernels, vectors and buffers, from their names and shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrap.checkpoint.encodings.plain import PlainTensor
from llmtrap.checkpoint.shapes import LARGEST_KERNEL, _is_buffer, arrange, holds_weights, widest_side
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import TensorEntry

WIDE = ("w.weight", (4096, 512))


def stored(name: str, shape: tuple[int, ...], dtype: str = "F32") -> PlainTensor:
    return PlainTensor(name, name.removesuffix(".weight"), dtype, shape, (entry(name, dtype, shape),))


def entry(name: str, dtype: str, shape: tuple[int, ...]) -> TensorEntry:
    return TensorEntry(name, dtype, shape, ByteRange("f", 0, 4 * math.prod(shape)))


def shape_of(name: str, shape: tuple[int, ...], *beside: tuple[str, tuple[int, ...]], **config: Any) -> Any:
    """The shape in which the tensor is measured, or what it counts as."""
    found = arrange([stored(name, shape), *(stored(*other) for other in (WIDE, *beside))], config)
    weights = {item.name: item.shape for item in found.weights}
    return weights.get(name) or next(item.kind for item in found.left_out if item.tensor == name)


@pytest.mark.parametrize(
    ("name", "shape", "measured"),
    [
        ("encoder.conv1.weight", (384, 80, 3), (384, 240)),
        ("wav2vec2.pos_conv_embed.conv.weight", (768, 48, 128), (768, 6144)),
        ("backbone.layers.0.mixer.conv1d.weight", (192, 1, 4), (192, 4)),
        ("visual.conv1.weight", (768, 3, 32, 32), (768, 3072)),
        ("visual.patch_embed.proj.weight", (1280, 3, 2, 14, 14), (1280, 1176)),
        ("patch_embed.proj.weight", (24, 3, 32, 32), (24, 3072)),
        ("features.0.weight", (64, 64, 3, 3), (64, 576)),
        ("features.1.weight", (32, 1, 3, 3), (32, 9)),
        ("out.weight", (3, 128, 3, 3), (3, 1152)),
        ("decoder.conv_post.weight", (1, 32, 7), (1, 224)),
        ("to_rgb.weight", (1, 128, 3, 3), (1, 1152)),
        ("vit.embeddings.position_embeddings", (1, 197, 768), (197, 768)),
        ("vit.pos_embed", (1, 14, 14, 1280), (196, 1280)),
    ],
)
def test_kernels_become_out_times_in_and_kernel(name: str, shape: tuple[int, ...], measured: tuple[int, ...]) -> None:
    assert shape_of(name, shape) == measured


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layers.0.mlp.switch_mlp.down_proj.weight", (6, 96, 128)),
        ("layers.0.moe.down_proj.weight", (6, 96, 128)),
        ("layers.0.mlp.input_linear.weight", (6, 256, 96)),
        ("layers.0.mlp.experts.gate_up_proj", (4, 8, 6)),
        ("layers.0.ffn.w1", (64, 1024, 512)),
        ("layers.0.attn.w_kc", (128, 128, 512)),
        ("decoder.mlp.kernel", (24, 1024, 4096)),
    ],
)
def test_stacks_stay_stacks_under_any_name(name: str, shape: tuple[int, ...]) -> None:
    assert shape_of(name, shape) == shape


def test_a_stack_of_stacks_is_a_stack() -> None:
    assert shape_of("decoder.moe.kernel", (4, 8, 64, 48)) == (32, 64, 48)


def test_more_experts_than_sides_are_told_by_the_configuration_or_a_router() -> None:
    name, shape = "layers.0.ffn.down", (128, 96, 2048)
    assert shape_of(name, shape) == (128, 96 * 2048)
    assert shape_of(name, shape, num_experts=128) == shape
    assert shape_of(name, shape, num_experts=64) == (128, 96 * 2048)
    assert shape_of(name, shape, ("layers.0.gate.weight", (128, 2048))) == shape
    assert shape_of(name, shape, ("layers.0.ffn.gate.weight", (128, 96))) == shape
    assert shape_of(name, shape, ("layers.1.gate.weight", (128, 2048))) == (128, 96 * 2048)


def test_the_longest_kernel_is_a_constant() -> None:
    side = LARGEST_KERNEL
    assert shape_of("mix.weight", (4, side, side)) == (4, side * side)
    assert shape_of("mix.weight", (4, side + 1, side + 1)) == (4, side + 1, side + 1)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.norm.weight", (512,), "one_dimensional"),
        ("logit_scale", (), "one_dimensional"),
        ("vit.cls_token", (1, 1, 768), "one_dimensional"),
        ("stage.gamma", (768, 1, 1), "one_dimensional"),
        ("final_logits_bias", (1, 4096), "one_dimensional"),
        ("model.layers.0._flat_param", (50_000,), "unmeasured"),
        ("layer._flat_param", (4097,), "unmeasured"),
        ("layer.bias", (4096,), "one_dimensional"),
        ("h.0.attn.bias", (1, 1, 1024, 1024), "buffer"),
        ("rotary_emb.inv_freq", (64,), "buffer"),
        ("layers.0.self_attn.rotary_emb.cos_cached", (1, 1, 2048, 64), "buffer"),
        ("mel_filters", (80, 201), "buffer"),
        ("a.weight", (0, 5), "unmeasured"),
        ("a.weight", (0,), "unmeasured"),
    ],
)
def test_what_holds_no_matrix(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert shape_of(name, shape) == kind


def test_stacked_biases_count_as_such_beside_their_weights_alone() -> None:
    name, shape = "layers.0.experts.down_proj_bias", (32, 2880)
    assert shape_of(name, shape, ("layers.0.experts.down_proj", (32, 2880, 2880))) == "one_dimensional"
    assert shape_of("block.0.mlp1_bias", shape, ("block.0.mlp1_weight", (32, 20, 2880))) == "one_dimensional"
    assert shape_of(name, shape) == "unmeasured"


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "weights"),
    [
        ("embeddings", "I8", (500, 64), True),
        ("layers.0.q._data", "I8", (96, 96), True),
        ("layers.0.q.W_q", "U8", (48, 96), True),
        ("layers.0.q.weight", "U8", (4608, 1), True),
        ("layers.0.q.packed", "I32", (512, 12), True),
        ("layers.0.q.qdata", "U8", (5000,), True),
        ("mapping", "I64", (500,), False),
        ("position_ids", "I64", (1, 512), False),
        ("relative_position_index", "I64", (49, 49), False),
        ("h.0.attn.bias", "U8", (1, 1, 1024, 1024), False),
        ("causal_mask", "BOOL", (1024, 1024), False),
        ("g_idx", "I32", (4096,), False),
        ("quant_state", "U8", (120,), False),
        ("pairs", "I32", (4096, 2), False),
        ("empty", "I8", (0, 64), False),
    ],
)
def test_integers_that_must_be_weights(name: str, dtype: str, shape: tuple[int, ...], weights: bool) -> None:
    assert holds_weights(entry(name, dtype, shape), widest_side([stored(*WIDE)])) is weights


@given(st.lists(st.integers(1, 9), min_size=0, max_size=5))
def test_no_entry_is_lost_or_counted_twice(shape: list[int]) -> None:
    found = arrange([stored("a.weight", tuple(shape)), stored(*WIDE)], {})
    (held,) = [math.prod(item.shape) for item in found.weights if item.name == "a.weight"] or [
        item.parameters for item in found.left_out
    ]
    assert held == int(np.prod(shape))
    assert all(len(item.shape) in (2, 3) for item in found.weights)


def test_names_that_end_alike_are_looked_up_once_among_the_buffers() -> None:
    _is_buffer.cache_clear()
    experts = [stored(f"model.layers.{k // 64}.mlp.experts.{k % 64}.up_proj.weight", (64, 32)) for k in range(2000)]
    norms = [stored(f"model.layers.{k}.input_norm.weight", (64,)) for k in range(100)]

    found = arrange([*experts, *norms, stored("model.rotary_emb.inv_freq", (64,))], {})

    assert len(found.weights) == 2000
    assert [item.kind for item in found.left_out] == ["one_dimensional"] * 100 + ["buffer"]
    assert _is_buffer.cache_info().misses == 2
