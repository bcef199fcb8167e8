"""Small sound checkpoints in memory, and the words their documents are made of: what the fuzzer starts from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from llmtrap.checkpoint.families import load_families
from llmtrap.checkpoint.layout import INDEX as INDEX_NAME
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity, lend
from llmtrap.errors import CheckpointError


@dataclass(frozen=True)
class MemorySource:
    """A checkpoint whose files are bytes in memory."""

    contents: dict[str, bytes]

    @property
    def identity(self) -> SourceIdentity:
        return SourceIdentity("fuzzed", "folder")

    def files(self) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(name, len(self.contents[name])) for name in sorted(self.contents))

    def read(self, span: ByteRange) -> Bytes:
        data = np.frombuffer(self.contents[span.file], dtype=np.uint8)[span.start : span.stop]
        if data.size != span.size:
            raise CheckpointError("the file is shorter than the range", file=span.file)
        return data.copy()

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        return lend(self.read(span))

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        out[:] = self.read(span)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """All of it is here."""

    def close(self) -> None:
        """Nothing is open."""


def shard(header: dict[str, object], data: int) -> bytes:
    """A safetensors file of zeros."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


ATTENTION = "model.layers.0.self_attn.q_proj.weight"
EXPERTS = "model.layers.0.mlp.experts.down_proj"
PLAIN = {ATTENTION: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
PACKED: dict[str, object] = {
    f"{EXPERTS}_blocks": {"dtype": "U8", "shape": [2, 32, 1, 16], "data_offsets": [0, 1024]},
    f"{EXPERTS}_scales": {"dtype": "U8", "shape": [2, 32, 1], "data_offsets": [1024, 1088]},
}
# What the configuration decides about: fused projections, stacked experts, blocks of scales, tied embeddings.
FUSED: dict[str, object] = {
    "model.layers.0.self_attn.qkv_proj.weight": {"dtype": "F16", "shape": [12, 2], "data_offsets": [0, 48]},
    "transformer.blocks.0.ffn.experts.mlp.w1": {"dtype": "F16", "shape": [12, 2], "data_offsets": [48, 96]},
    "gpt_neox.layers.0.attention.query_key_value.weight": {"dtype": "F16", "shape": [12, 2], "data_offsets": [96, 144]},
    "model.embed_tokens.weight": {"dtype": "F8_E4M3", "shape": [6, 4], "data_offsets": [144, 168]},
    "model.embed_tokens.weight_scale_inv": {"dtype": "F32", "shape": [3, 2], "data_offsets": [168, 192]},
}
FACTORS: dict[str, object] = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":
        {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight":
        {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
}  # fmt: skip
NAMES = [*PLAIN, *PACKED, f"{EXPERTS}_bias", "lm_head.weight", "a.weight_scale_inv", ""]
SHARDS = ["a.safetensors", "b.safetensors", "../a.safetensors", "/b.safetensors", INDEX_NAME, "weights.bin", "c", ""]
CONFIG = {"model_type": "gpt_oss", "num_hidden_layers": 1, "quantization_config": {"quant_method": "mxfp4"}}
INDEX = {"weight_map": {ATTENTION: "a.safetensors", **dict.fromkeys(PACKED, "b.safetensors")}}
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}
CONFIG_KEYS = [
    "model_type", "architectures", "num_attention_heads", "num_key_value_heads", "n_heads", "head_dim", "attn_config",
    "kv_n_heads", "ffn_config", "moe_num_experts", "tie_word_embeddings", "text_config", "quantization_config",
    "compression_config", "quant_method", "weight_block_size", "format",
]  # fmt: skip
ADAPTER_KEYS = [
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "use_dora",
    "init_lora_weights", "base_model_name_or_path", "revision", "model.layers.0.self_attn.q_proj", ".*q_proj",
    "layers.(0|1).self_attn.[a-z]+_proj", "q_proj",
]  # fmt: skip
FUSING = ["phi3", "dbrx", "gpt_neox", "gpt_oss", "deepseek_v3"]
WORDS = [
    "LORA", "mxfp4", "fp8", "compressed-tensors", "pissa", "LlamaForCausalLM", *(kind for family in load_families()
    for kind in family.model_types),
]  # fmt: skip
