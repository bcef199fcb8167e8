"""From config.json to a `transformers` model on the meta device, and the row of layers within it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from llmtrap.ablation.gguf_models import gguf_config, is_gguf
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.names import printable
from llmtrap.errors import MissingExtraError, UnsupportedError

_LAYER_LISTS = ("layers", "layer", "h", "blocks", "block")


_COMPARE = "Compare it with the one that the model was published with"

# Of each a module is made, before any weight is looked at: more than any published model has.
_MOST = (
    (re.compile(r"(?:n|num)_(?:\w+_)?layers?|(?:en|de)coder_layers"), 2_000),
    (re.compile(r"(?:n|num)_(?:\w+_)?experts"), 10_000),
)


def build_model(checkpoint: Checkpoint) -> tuple[Any, bool, Any]:
    """The model's configuration, whether it is a causal language model, and the model on the meta device.

    Raises:
        MissingExtraError: transformers or accelerate is not installed.
        UnsupportedError: the configuration is of no model that transformers can build.
    """
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
    _check_counts(stated)
    with _blamed_on_the_configuration():
        config = transformers.CONFIG_MAPPING[kind].from_dict(stated)
    if getattr(config, "is_encoder_decoder", False):
        remedy = "Ablation needs one row of layers"
        raise UnsupportedError("an encoder-decoder model", file="config.json", remedy=remedy)
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and _speaks(stated)
    factory: Any = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with init_empty_weights(include_buffers=False), _blamed_on_the_configuration():
        model = factory.from_config(
            config, dtype=torch.float32, trust_remote_code=False, experts_implementation="eager"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return config, causal, model


@contextmanager
def _blamed_on_the_configuration() -> Iterator[None]:
    """What transformers raises while it reads a configuration, or builds a model of it, is the configuration's."""
    try:
        yield
    except Exception as error:
        words = printable(" ".join(str(error).split()), 300)
        problem = f"transformers builds no model of it ({type(error).__name__}: {words})"
        raise UnsupportedError(problem, file="config.json", remedy=_COMPARE) from error


def _check_counts(stated: Mapping[str, Any]) -> None:
    """Refuse a configuration of which millions of modules would be made.

    Raises:
        UnsupportedError: it counts more layers or experts than any model has.
    """
    for key, value in stated.items():
        if isinstance(value, dict):
            _check_counts(value)
        most = next((most for name, most in _MOST if name.fullmatch(str(key))), None)
        if most is not None and isinstance(value, int) and value > most:
            problem = f"{printable(str(key), 80)} is over {most:,}, more than any model has"
            raise UnsupportedError(problem, file="config.json", remedy=_COMPARE)


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
