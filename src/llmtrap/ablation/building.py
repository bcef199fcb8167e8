"""From config.json to a `transformers` model on the meta device, and the row of layers within it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llmtrap.ablation.gguf_models import gguf_config, is_gguf
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.names import printable
from llmtrap.errors import MissingExtraError, UnsupportedError

_LAYER_LISTS = ("layers", "layer", "h", "blocks", "block")


def build_model(checkpoint: Checkpoint) -> tuple[Any, bool, Any]:
    """The model's configuration, whether it is a causal language model, and the model on the meta device."""
    try:
        import transformers  # noqa: PLC0415 - an extra
        from accelerate import init_empty_weights  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError.of("ablation", "ablation") from None
    stated = gguf_config(checkpoint) if is_gguf(checkpoint) else dict(checkpoint.catalogue.config)
    stated.pop("quantization_config", None)
    kind = stated.pop("model_type", None)
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise UnsupportedError(
            f"config.json names the model type {printable(str(kind))!r}, which transformers does not know",
            file="config.json",
            remedy="Only models that transformers can build without the repository's own code can be ablated",
        )
    config = transformers.CONFIG_MAPPING[kind].from_dict(stated)
    if getattr(config, "is_encoder_decoder", False):
        remedy = "Ablation needs one row of layers"
        raise UnsupportedError("an encoder-decoder model", file="config.json", remedy=remedy)
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and _speaks(stated)
    factory: Any = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with init_empty_weights(include_buffers=False):
        model = factory.from_config(
            config, dtype=torch.float32, trust_remote_code=False, experts_implementation="eager"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return config, causal, model


def _speaks(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a model that predicts the next token."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(
        isinstance(name, str) and name.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration")) for name in names
    )


def layer_list(model: nn.Module) -> tuple[tuple[nn.Module, str], str, nn.ModuleList]:
    """The list of layers that hold most of the parameters: (its owner, the owner's prefix), its name, the list."""
    best: tuple[int, tuple[nn.Module, str], str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.ModuleList) and leaf in _LAYER_LISTS:
            size = sum(parameter.numel() for parameter in module.parameters())
            if best is None or size > best[0]:
                best = (size, (model.get_submodule(parent), f"{parent}." if parent else ""), leaf, module)
    if best is None:
        problem = f"{type(model).__name__} has no list of layers"
        raise UnsupportedError(problem, file="config.json", remedy="It cannot be run layer by layer")
    return best[1], best[2], best[3]
