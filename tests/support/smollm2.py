"""SmolLM2-135M out of its GGUF, as checkpoints of the kinds people have: BF16, MXFP4 in GPT-OSS's layout, block-FP8.

Its numbers are those of the dequantised file (Q4_1 and Q8_0), rounded to BF16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import save_file

from llmtrap.demo import mxfp4
from llmtrap.demo.layout import GptOssShape, config_document

Tensors = dict[str, NDArray[Any]]

LAYERS, HIDDEN, MIDDLE, HEADS, KV_HEADS, VOCABULARY = 30, 576, 1536, 9, 3, 49152
SHARD_BYTES = 100_000_000
E4M3_MAX = 448.0

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
}

HF_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def from_gguf(path: Path) -> Tensors:
    """Every tensor as BF16 under its Hugging Face name, [out, in], with q and k rows back in that library's order."""
    from gguf import GGUFReader, dequantize  # noqa: PLC0415 - an extra: the rest of the tests run without it

    tensors: Tensors = {}
    for entry in GGUFReader(path).tensors:
        values = dequantize(entry.data, entry.tensor_type)
        if entry.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
        elif entry.name == "output_norm.weight":
            name = "model.norm.weight"
        else:
            _, layer, part, _ = entry.name.split(".")
            if part in ("attn_q", "attn_k"):
                heads = HEADS if part == "attn_q" else KV_HEADS
                # ggml interleaves the two halves of each head for its rotary embedding
                values = values.reshape(heads, -1, 2, HIDDEN).swapaxes(1, 2).reshape(values.shape)
            name = f"model.layers.{layer}.{HF_NAMES[part]}.weight"
        tensors[name] = np.ascontiguousarray(values).astype(ml_dtypes.bfloat16)
    return tensors


def gpt_oss_mxfp4(smollm2: Tensors) -> Tensors:
    """The same matrices as a GPT-OSS of 7 layers and 4 experts: no working language model, but real spectra.

    Layer j has the attention of layer 4j, and as experts the MLPs of layers 4j … 4j+3, gate in the even rows and up in
    the odd. What SmolLM2 lacks is neutral: zero biases and sinks, a drawn router.
    """
    rng = np.random.default_rng(0)
    tensors: Tensors = {name: smollm2[name] for name in ("model.embed_tokens.weight", "model.norm.weight")}
    for layer in range(7):
        base, source = f"model.layers.{layer}", f"model.layers.{4 * layer}"
        for norm in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            tensors[f"{base}.{norm}"] = smollm2[f"{source}.{norm}"]
        for part in "qkvo":
            weight = smollm2[f"{source}.self_attn.{part}_proj.weight"]
            tensors[f"{base}.self_attn.{part}_proj.weight"] = weight
            tensors[f"{base}.self_attn.{part}_proj.bias"] = np.zeros(weight.shape[0], dtype=ml_dtypes.bfloat16)
        tensors[f"{base}.self_attn.sinks"] = np.zeros(HEADS, dtype=ml_dtypes.bfloat16)
        router = 0.05 * rng.standard_normal((4, HIDDEN))
        tensors[f"{base}.mlp.router.weight"] = router.astype(ml_dtypes.bfloat16)
        tensors[f"{base}.mlp.router.bias"] = np.zeros(4, dtype=ml_dtypes.bfloat16)
        experts = [f"model.layers.{4 * layer + expert}.mlp" for expert in range(4)]
        gate_up = np.empty((4, 2 * MIDDLE, HIDDEN), dtype=np.float32)
        gate_up[:, 0::2] = [smollm2[f"{mlp}.gate_proj.weight"] for mlp in experts]
        gate_up[:, 1::2] = [smollm2[f"{mlp}.up_proj.weight"] for mlp in experts]
        down = np.stack([smollm2[f"{mlp}.down_proj.weight"].astype(np.float32) for mlp in experts])
        for name, stack in (("gate_up_proj", gate_up), ("down_proj", down)):
            stem = f"{base}.mlp.experts.{name}"
            tensors[f"{stem}_blocks"], tensors[f"{stem}_scales"] = mxfp4.quantise(stack)
            tensors[f"{stem}_bias"] = np.zeros(stack.shape[:2], dtype=ml_dtypes.bfloat16)
    return tensors


def gpt_oss_bf16(quantised: Tensors) -> Tensors:
    """The exact upcast of an MXFP4 GPT-OSS as transformers saves it: bare names, experts transposed to [E, in, out]."""
    tensors: Tensors = {}
    for name, tensor in quantised.items():
        if name.endswith("_blocks"):
            values = mxfp4.dequantise(tensor, quantised[name.replace("_blocks", "_scales")])
            upcast = np.ascontiguousarray(values.transpose(0, 2, 1)).astype(ml_dtypes.bfloat16)
            tensors[name.removesuffix("_blocks")] = upcast
        elif not name.endswith("_scales"):
            tensors[name] = tensor
    return tensors


def block_fp8(smollm2: Tensors, block: int) -> Tensors:
    """Linear weights as E4M3 with one float32 scale per block × block tile; tiles at the edge may be smaller."""
    tensors: Tensors = {}
    for name, tensor in smollm2.items():
        if "_proj" not in name:
            tensors[name] = tensor
            continue
        rows, columns = tensor.shape
        grid = (-(-rows // block), -(-columns // block))
        padded = np.zeros((grid[0] * block, grid[1] * block), dtype=np.float32)
        padded[:rows, :columns] = tensor
        tiles = padded.reshape(grid[0], block, grid[1], block)
        scales = (np.abs(tiles).max(axis=(1, 3)) / E4M3_MAX).astype(np.float32)
        codes = (tiles / scales[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
        tensors[name] = np.ascontiguousarray(codes).astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
    return tensors


def gpt_oss_config(quantised: bool) -> dict[str, Any]:
    """config.json of the GPT-OSS twins. Their embedding is tied, which the published model's is not."""
    config = config_document(
        GptOssShape(
            layers=7,
            experts=4,
            hidden=HIDDEN,
            intermediate=MIDDLE,
            heads=HEADS,
            kv_heads=KV_HEADS,
            vocabulary=VOCABULARY,
        )
    )
    config["tie_word_embeddings"] = True
    if not quantised:
        del config["quantization_config"]
    return config


def fp8_config(block: int) -> dict[str, Any]:
    """config.json of a block-FP8 twin, as DeepSeek-V3 states it."""
    return CONFIG | {
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [block, block],
        }
    }


def write_checkpoint(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """Write shards in the order of the tensors, an index and a config.json, with Hugging Face's file names."""
    shards: list[Tensors] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_checkpoint(folder: Path) -> Tensors:
    """Every tensor of a folder that `write_checkpoint` wrote, by safetensors alone."""
    dtypes = {"BF16": ml_dtypes.bfloat16, "U8": np.uint8}
    tensors: Tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, entry in deserialize(shard.read_bytes()):
            tensors[name] = np.frombuffer(entry["data"], dtype=dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors
