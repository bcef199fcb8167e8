"""Small random models of several architectures, as their own library saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the extra 'ablation' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'ablation' is not installed")

COMMON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 130}
GROUPED = COMMON | {"num_key_value_heads": 2, "intermediate_size": 96}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED, bos_token_id=1),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=8),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **GROUPED | {"intermediate_size": 64},
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt2": lambda: transformers.GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=130, n_positions=64),
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4),
    "bert": lambda: transformers.BertConfig(**COMMON, intermediate_size=96, architectures=["BertModel"]),
}


def save_model(name: str, folder: Path) -> Any:
    """A random model of this architecture, saved; weights large enough that every part matters."""
    torch.manual_seed(0)
    config = MODELS[name]()
    factory = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
    model = factory.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.05)
    model.save_pretrained(folder)
    return model


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A saved Llama of three layers."""
    folder = tmp_path / "llama"
    save_model("llama", folder)
    return folder
