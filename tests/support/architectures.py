"""Every architecture that the installed transformers can build, as names and shapes: no weight is made."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
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


def _cut(config: Any, depth: int = 0) -> None:
    """Four layers where there are more; what a configuration does not let itself be told is left."""
    for key, value in list(vars(config).items()):
        wanted: Any = None
        if key in _DEPTHS and isinstance(value, int):
            wanted = min(value, _LAYERS)
        elif key in _LISTS and isinstance(value, list):
            wanted = value[:_LAYERS]
        elif hasattr(value, "to_dict") and depth < 3:
            _cut(value, depth + 1)
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
