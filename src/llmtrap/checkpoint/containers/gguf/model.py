"""What the keys of GGUF files say: of how many parts a model is, and what config.json would say of it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Catalogue
from llmtrap.errors import CheckpointError

_CONFIG_KEYS = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "num_experts": "expert_count",
}  # fmt: skip

_MODEL_TYPES = {
    "gpt-oss": "gpt_oss", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "deepseek2": "deepseek_v3",
    "gptneox": "gpt_neox", "gemma3": "gemma3_text", "llama4": "llama4_text",
}  # fmt: skip
"""Architectures whose name in config.json is another."""

_PERMUTED = (
    "llama", "mistral", "mistral3", "granite", "granitemoe", "minicpm", "deci", "baichuan", "xverse", "internlm2",
    "arcee", "olmo", "smollm3",
)  # fmt: skip
"""Architectures of which llama.cpp's converter reorders the rows of q and k, for its rotary embedding."""


def check_split(metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a model of which parts are missing, or parts of different models.

    Args:
        metadata: the keys of each file, by its name.

    Raises:
        CheckpointError: a part is missing, is there twice, or is of a model of another number of parts.
    """
    counts = {name: keys.get("split.count", 1) or 1 for name, keys in metadata.items()}
    numbers = sorted(keys.get("split.no", 0) for keys in metadata.values() if type(keys.get("split.no", 0)) is int)
    name, count = next(iter(counts.items()))
    if any(other != count for other in counts.values()) or type(count) is not int:
        problem = "these GGUF files are not parts of one model"
        raise CheckpointError(problem, file=printable(name), remedy="Give the one file to audit as the target")
    if count > 1 and numbers != list(range(count)):
        problem = f"the model is split into {count} GGUF files, and {len(metadata)} are here"
        remedy = "Give the folder that holds all parts, NAME-00001-of-0000N.gguf and on"
        raise CheckpointError(problem, file=printable(name), remedy=remedy)


def model_config(metadata: Mapping[str, Any], tensors: Container[str]) -> dict[str, Any]:
    """What the keys say of the model, under the names of config.json; empty where they do not name an architecture.

    Args:
        metadata: the keys of the model's first file.
        tensors: names of its tensors: without an `output` the embedding serves as one.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        return {}
    found = {name: metadata.get(f"{architecture}.{key}") for name, key in _CONFIG_KEYS.items()}
    return {
        "model_type": _MODEL_TYPES.get(architecture, architecture),
        "tie_word_embeddings": "output.weight" not in tensors,
        **{name: value for name, value in found.items() if type(value) is int},
    }


def is_permuted(catalogue: Catalogue) -> bool:
    """Whether the rows of q and k lie in llama.cpp's order: row h·d + 2i + j is the model's row h·d + j·d/2 + i."""
    return any(keys.get("general.architecture") in _PERMUTED for keys in catalogue.metadata.values())
