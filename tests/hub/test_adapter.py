"""A LoRA adapter on a hub names its base, and both are read by name."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save
from tests.support.hub import LoopbackHub

from llmtrap.checkpoint import open_checkpoint, open_source
from llmtrap.checkpoint.adapters import is_adapter, read_adapter, read_factors


def test_an_adapter_and_its_base_by_name(hub: LoopbackHub) -> None:
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(2, 6)).astype(np.float32), draw.normal(size=(8, 2)).astype(np.float32)
    module = "model.layers.0.self_attn.q_proj"
    config = {"base_model_name_or_path": "org/base", "peft_type": "LORA", "r": 2, "lora_alpha": 4}
    weights = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    files = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(weights)}
    hub.add("org/lora", files)
    base = {f"{module}.weight": draw.normal(size=(8, 6)).astype(np.float32)}
    hub.add("org/base", {"config.json": b'{"model_type": "llama"}', "model.safetensors": save(base)})

    source = open_source("org/lora")
    assert is_adapter(source)
    adapter = read_adapter(source)
    assert adapter.base_name == "org/base"
    (pair,) = adapter.pairs
    left, right = read_factors(pair, source, adapter.file.name)
    np.testing.assert_allclose(left @ right, 2.0 * b.astype(np.float64) @ a.astype(np.float64))
    assert [matrix.tensor for matrix in open_checkpoint(adapter.base_name).matrices] == [f"{module}.weight"]
    source.close()
