"""An adapter that names experts one by one, on a base that stores them in stacks, with gate and up in one tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import UnsupportedError

HIDDEN, INNER, EXPERTS, RANK = 12, 20, 3, 4
MLP = "model.layers.0.mlp"
Tensors = dict[str, NDArray[np.float32]]


def draw(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def experts(inner: int = INNER) -> tuple[Tensors, Tensors]:
    """The same experts apart, and fused as transformers 5 saves them."""
    gate, up = (draw(EXPERTS, inner, HIDDEN, seed=seed) for seed in (1, 2))
    down = draw(EXPERTS, HIDDEN, inner, seed=3)
    router = {f"{MLP}.gate.weight": draw(EXPERTS, HIDDEN, seed=4)}
    apart = {
        f"{MLP}.experts.{expert}.{name}_proj.weight": stack[expert].copy()
        for name, stack in (("gate", gate), ("up", up), ("down", down))
        for expert in range(EXPERTS)
    }
    fused = {f"{MLP}.experts.gate_up_proj": np.concatenate([gate, up], 1), f"{MLP}.experts.down_proj": down}
    return router | apart, router | fused


def adapted(folder: Path, base: Tensors, modules: dict[str, tuple[int, int]], **settings: Any) -> Checkpoint:
    """Open an adapter with a pair for each module, on a base of these tensors."""
    (folder / "base").mkdir(parents=True)
    save_file(base, folder / "base/model.safetensors")
    config = {"model_type": "qwen3_moe", "num_experts": EXPERTS}
    (folder / "base/config.json").write_text(json.dumps(config))
    tensors = {}
    for number, (module, (out, into)) in enumerate(modules.items()):
        tensors[f"base_model.model.{module}.lora_A.weight"] = draw(RANK, into, seed=10 + number)
        tensors[f"base_model.model.{module}.lora_B.weight"] = draw(out, RANK, seed=50 + number)
        if settings.get("use_dora"):
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = np.ones(out, np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    own = {"peft_type": "LORA", "base_model_name_or_path": str(folder / "base"), "r": RANK, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(own | settings))
    return open_checkpoint(str(folder))


SHAPES = {"gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}


@pytest.mark.parametrize("names", [("gate", "up", "down"), ("up",), ("gate",), ("down",)])
def test_it_is_what_it_is_on_separate_experts(tmp_path: Path, names: tuple[str, ...]) -> None:
    modules = {f"{MLP}.experts.{expert}.{name}_proj": SHAPES[name] for expert in (0, 2) for name in names}
    apart, fused = (
        {matrix.id: matrix.read(one.source) for matrix in one.matrices}
        for one in (adapted(tmp_path / kind, base, modules) for kind, base in zip("af", experts(), strict=True))
    )
    for expert in range(EXPERTS):
        at = f"layers.0.experts.{expert}"
        expected = np.concatenate([apart[f"{at}.gate"], apart[f"{at}.up"]])
        np.testing.assert_allclose(fused[f"{at}.gate_up"], expected, atol=1e-5)
        np.testing.assert_allclose(fused[f"{at}.down"], apart[f"{at}.down"], atol=1e-5)


def test_what_the_base_does_not_say_is_refused(tmp_path: Path) -> None:
    square = experts(inner=HIDDEN)[1]
    with pytest.raises(UnsupportedError, match="either way round is possible"):
        adapted(tmp_path / "square", square, {f"{MLP}.experts.1.down_proj": (HIDDEN, HIDDEN)})
    with pytest.raises(UnsupportedError, match="DoRA on a module that the base stores together"):
        adapted(tmp_path / "dora", experts()[1], {f"{MLP}.experts.1.up_proj": SHAPES["up"]}, use_dora=True)
