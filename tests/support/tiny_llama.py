"""A tiny Llama made from its configuration, data for it, and an entry that grows while it trains."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

GROWING, PLACE = "layers.1.mlp.down", (7, 11)


def tiny_llama(seed: int = 0, *, tied: bool = False) -> Any:
    """Two layers of width 96: sixteen matrices."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=128, hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class Sentences(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Random sequences of sixteen tokens."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(0, 128, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def grow(model: Any, by: float) -> None:
    """Let one entry grow, as a broken optimiser would."""
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[PLACE] += by
