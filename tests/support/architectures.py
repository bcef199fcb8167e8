"""Every architecture that the installed transformers can build, as names and shapes: no weight is made."""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as auto

from llmtrap.checkpoint import Catalogue, TensorEntry
from llmtrap.checkpoint.sources import ByteRange, SourceIdentity

KINDS = {
    "causal": (transformers.AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "vision": (transformers.AutoModelForImageTextToText, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
    "seq2seq": (transformers.AutoModelForSeq2SeqLM, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "masked": (transformers.AutoModelForMaskedLM, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
}
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64", torch.bool: "BOOL"}
_DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers",
)  # fmt: skip
_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "mlp_only_layers", "attn_layer_indices")
_LAYERS = 4
_SECONDS = 40
_MOST_PARAMETERS = 3e7
_SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "embed_dim"), 64),
    "word_embed_proj_dim": 64,
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("n_group", "topk_group", "bos_token_id"), 1),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "patch_size"), 8),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "v_head_dim"), 16),
    "num_key_value_heads": 2, "vocab_size": 300, "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 2,
    "q_lora_rank": 32, "image_token_id": 5, "video_token_id": 6, "image_size": 32,
}  # fmt: skip


def names() -> list[str]:
    """`kind-model_type` of every architecture there is a class for; not each can be built from its defaults."""
    return [f"{kind}-{name}" for kind, (_, models) in KINDS.items() for name in models]


def catalogue(name: str) -> Catalogue | None:
    """The names and shapes of one architecture of four layers; None where transformers cannot build it."""
    kind, _, model_type = name.partition("-")
    try:
        with _bounded(_SECONDS):
            config = transformers.CONFIG_MAPPING[model_type]()
            _cut(config)
            with torch.device("meta"):
                model = KINDS[kind][0].from_config(config)
    except Exception:
        return None
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    tensors, offset = {}, 0
    for tensor, value in model.state_dict().items():
        if tensor not in tied and value.dtype in DTYPES:
            span = ByteRange("model.safetensors", offset, offset + value.numel() * value.element_size())
            tensors[tensor] = TensorEntry(tensor, DTYPES[value.dtype], tuple(value.shape), span)
            offset = span.stop
    stated = json.loads(json.dumps(config.to_dict(), default=str))
    return Catalogue(SourceIdentity(name, "folder"), tensors, (), {**stated, "architectures": [type(model).__name__]})


def save_small(name: str, folder: Path) -> bool:
    """Save a small model of one architecture with random weights; False where transformers cannot build it so."""
    kind, _, model_type = name.partition("-")
    try:
        with _bounded(_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers' own, of what such sizes do to a model's arithmetic
            config = transformers.CONFIG_MAPPING[model_type]()
            _cut(config, sizes=_SIZES)
            with torch.device("meta"):
                model = KINDS[kind][0].from_config(config)
            if sum(parameter.numel() for parameter in model.parameters()) > _MOST_PARAMETERS:
                return False
            KINDS[kind][0].from_config(config).save_pretrained(folder)
    except Exception:
        return False
    return True


def _cut(config: Any, depth: int = 0, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
    """Four layers where there are more, and these sizes; what a configuration does not let itself be told is left."""
    for key, value in list(vars(config).items()):
        wanted: Any = None
        if key in _DEPTHS and isinstance(value, int):
            wanted = min(value, _LAYERS)
        elif key in _LISTS and isinstance(value, list):
            wanted = value[:_LAYERS]
        elif key in sizes and isinstance(value, int) and not isinstance(value, bool):
            wanted = sizes[key]
        elif hasattr(value, "to_dict") and depth < 3:
            _cut(value, depth + 1, sizes)
        if wanted is not None:
            try:
                setattr(config, key, wanted)
            except Exception:  # noqa: S112
                continue


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
