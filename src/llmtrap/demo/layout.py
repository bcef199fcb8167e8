"""The on-disk layout of GPT-OSS: tensor names, shapes, dtypes, order, shards, index and configuration, at any size.

The order of the tensors and the limit of a shard are those of the published gpt-oss-20b, whose three files come out to
the byte; see tests/demo/test_layout.py for the figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ITEM_BYTES = {"BF16": 2, "U8": 1}
BLOCK = 32
BLOCK_BYTES = 16
MAX_SHARD_BYTES = 4_800_000_000


@dataclass(frozen=True)
class GptOssShape:
    """The sizes that tell one GPT-OSS from another; defaults are those of gpt-oss-20b."""

    layers: int = 24
    experts: int = 32
    hidden: int = 2880
    intermediate: int = 2880
    heads: int = 64
    kv_heads: int = 8
    head_dim: int = 64
    vocabulary: int = 201_088
    experts_per_token: int = 4


@dataclass(frozen=True)
class TensorSpec:
    """One stored tensor: its name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def tensor_specs(shape: GptOssShape) -> tuple[TensorSpec, ...]:
    """Every tensor, in the order in which the published checkpoint is cut into shards.

    Layers come in the order of their numbers as text (0, 1, 10, 11, …, 2, 20, …), and within a layer in the
    alphabetical order of the original, unconverted names; so a layer may straddle two shards.
    """
    specs: list[TensorSpec] = []
    for layer in sorted(range(shape.layers), key=str):
        specs += _layer_specs(shape, layer)
    table = (shape.vocabulary, shape.hidden)
    specs.append(TensorSpec("model.embed_tokens.weight", "BF16", table))
    specs.append(TensorSpec("model.norm.weight", "BF16", (shape.hidden,)))
    specs.append(TensorSpec("lm_head.weight", "BF16", table))
    return tuple(specs)


def _layer_specs(shape: GptOssShape, layer: int) -> list[TensorSpec]:
    hidden, experts = shape.hidden, shape.experts
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    gate_up, blocks_in, blocks_mid = 2 * shape.intermediate, hidden // BLOCK, shape.intermediate // BLOCK
    rows: list[tuple[str, str, tuple[int, ...]]] = [
        ("input_layernorm.weight", "BF16", (hidden,)),
        ("self_attn.o_proj.bias", "BF16", (hidden,)),
        ("self_attn.o_proj.weight", "BF16", (hidden, queries)),
        ("self_attn.q_proj.bias", "BF16", (queries,)),
        ("self_attn.k_proj.bias", "BF16", (keys,)),
        ("self_attn.v_proj.bias", "BF16", (keys,)),
        ("self_attn.q_proj.weight", "BF16", (queries, hidden)),
        ("self_attn.k_proj.weight", "BF16", (keys, hidden)),
        ("self_attn.v_proj.weight", "BF16", (keys, hidden)),
        ("self_attn.sinks", "BF16", (shape.heads,)),
        ("mlp.router.bias", "BF16", (experts,)),
        ("mlp.router.weight", "BF16", (experts, hidden)),
        ("mlp.experts.gate_up_proj_bias", "BF16", (experts, gate_up)),
        ("mlp.experts.gate_up_proj_blocks", "U8", (experts, gate_up, blocks_in, BLOCK_BYTES)),
        ("mlp.experts.gate_up_proj_scales", "U8", (experts, gate_up, blocks_in)),
        ("mlp.experts.down_proj_bias", "BF16", (experts, hidden)),
        ("mlp.experts.down_proj_blocks", "U8", (experts, hidden, blocks_mid, BLOCK_BYTES)),
        ("mlp.experts.down_proj_scales", "U8", (experts, hidden, blocks_mid)),
        ("post_attention_layernorm.weight", "BF16", (hidden,)),
    ]
    return [TensorSpec(f"model.layers.{layer}.{name}", dtype, size) for name, dtype, size in rows]


def cut_shards(specs: Iterable[TensorSpec], max_bytes: int = MAX_SHARD_BYTES) -> tuple[tuple[TensorSpec, ...], ...]:
    """Fill one shard after another, in order; none grows over `max_bytes` unless one tensor alone does."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.nbytes
    return tuple(tuple(shard) for shard in shards)


def shard_name(number: int, count: int) -> str:
    """File name of shard `number` of `count`: both numbers count from 0, as in the published repositories."""
    return f"model-{number:05d}-of-{count - 1:05d}.safetensors"


def index_document(shards: Sequence[Sequence[TensorSpec]]) -> dict[str, Any]:
    """The content of model.safetensors.index.json."""
    places = {spec.name: shard_name(i, len(shards)) for i, shard in enumerate(shards) for spec in shard}
    total = sum(spec.nbytes for shard in shards for spec in shard)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def config_document(shape: GptOssShape) -> dict[str, Any]:
    """The content of config.json, key for key as published."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": min(200_002, shape.vocabulary - 1),
        "experts_per_token": shape.experts_per_token,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "layer_types": ["full_attention" if layer % 2 else "sliding_attention" for layer in range(shape.layers)],
        "max_position_embeddings": 131_072,
        "model_type": "gpt_oss",
        "num_attention_heads": shape.heads,
        "num_experts_per_tok": shape.experts_per_token,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "num_local_experts": shape.experts,
        "output_router_logits": False,
        "pad_token_id": min(199_999, shape.vocabulary - 2),
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150_000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "transformers_version": "4.55.0.dev0",
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }


_IDS = (
    (re.compile(r"model\.layers\.(\d+)\.self_attn\.([qkvo])_proj\.weight"), "layers.{0}.attention.{1}"),
    (re.compile(r"model\.layers\.(\d+)\.mlp\.router\.weight"), "layers.{0}.router"),
    (re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj_blocks"), "layers.{0}.experts.{expert}.{1}"),
    (re.compile(r"model\.embed_tokens\.weight"), "embedding"),
    (re.compile(r"lm_head\.weight"), "unembedding"),
)


def matrix_id(tensor: str, expert: int | None = None) -> str | None:
    """Canonical id of the matrix that a tensor (or one expert of it) holds; None where it holds no weight matrix."""
    for pattern, template in _IDS:
        if match := pattern.fullmatch(tensor):
            return template.format(*match.groups(), expert=expert)
    return None
