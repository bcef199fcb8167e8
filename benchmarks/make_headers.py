"""Make checkpoints that are headers alone: real names, shapes, shards and index, and no byte of a weight.

    python -m benchmarks.make_headers --model llama-3-70b --out llama-3-70b-headers
    llmtrap inspect llama-3-70b-headers

The files are sparse: they have their full length and take a few megabytes of disk. `inspect` reads headers only, so it
costs what it would on the real model. An audit of one finds nothing but zeros.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.shard_files import ShardFiles
from llmtrap.demo.layout import TensorSpec, cut_shards, index_document


@dataclass(frozen=True)
class HeaderModel:
    """A model by its stored tensors and its config.json."""

    config: dict[str, Any]
    tensors: Callable[[], list[TensorSpec]]


def llama_70b() -> list[TensorSpec]:
    """Llama-3-70B: 80 layers, hidden 8192, feed-forward 28672, 8 heads of keys and values, 128256 tokens, BF16."""
    hidden, middle, keys, tokens = 8192, 28_672, 1024, 128_256
    layer = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden),
        "mlp.down_proj": (hidden, middle), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    return _model([layer] * 80, hidden, tokens)


def trillion_mixture() -> list[TensorSpec]:
    """A mixture as Kimi-K2 is built: 61 layers, the first dense, 384 experts of 7168 × 2048 in each other, in BF16."""
    hidden, dense, middle, experts, tokens = 7168, 18_432, 2048, 384, 163_840
    attention: dict[str, tuple[int, ...]] = {
        "self_attn.q_a_proj": (1536, hidden), "self_attn.q_a_layernorm": (1536,), "self_attn.q_b_proj": (12_288, 1536),
        "self_attn.kv_a_proj_with_mqa": (576, hidden), "self_attn.kv_a_layernorm": (512,),
        "self_attn.kv_b_proj": (16_384, 512), "self_attn.o_proj": (hidden, 8192),
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    mixture = attention | {"mlp.gate": (experts, hidden)} | _mlp("mlp.shared_experts", hidden, middle)
    for expert in range(experts):
        mixture |= _mlp(f"mlp.experts.{expert}", hidden, middle)
    return _model([attention | _mlp("mlp", hidden, dense)] + [mixture] * 60, hidden, tokens)


def _mlp(name: str, hidden: int, middle: int) -> dict[str, tuple[int, ...]]:
    up = (middle, hidden)
    return {f"{name}.gate_proj": up, f"{name}.up_proj": up, f"{name}.down_proj": (hidden, middle)}


def _model(layers: list[dict[str, tuple[int, ...]]], hidden: int, tokens: int) -> list[TensorSpec]:
    return [
        TensorSpec("model.embed_tokens.weight", "BF16", (tokens, hidden)),
        *(
            TensorSpec(f"model.layers.{number}.{name}.weight", "BF16", shape)
            for number, layer in enumerate(layers)
            for name, shape in layer.items()
        ),
        TensorSpec("model.norm.weight", "BF16", (hidden,)),
        TensorSpec("lm_head.weight", "BF16", (tokens, hidden)),
    ]


MODELS = {
    "llama-3-70b": HeaderModel(
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False},
        llama_70b,
    ),
    "mixture-1t": HeaderModel(
        {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
         "num_hidden_layers": 61, "n_routed_experts": 384, "num_attention_heads": 64, "vocab_size": 163_840,
         "tie_word_embeddings": False},
        trillion_mixture,
    ),
}  # fmt: skip


def make_headers(folder: Path, model: HeaderModel) -> None:
    """Write the headers, index and configuration into a new or empty folder.

    Raises:
        FileExistsError: the folder is not empty.
        OSError: the file system has no sparse files and no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    shards = cut_shards(model.tensors())
    with ShardFiles(folder, shards):
        pass  # opening writes each header and sets the length
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_document(shards)), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(model.config), encoding="utf-8")


def main() -> int:
    """Make one of the models."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.make_headers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    make_headers(options.out, MODELS[options.model])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
