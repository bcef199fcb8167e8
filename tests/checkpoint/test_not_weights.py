"""Files whose tensors are no weights: LoRA layouts of every library, unmerged PEFT models, ungathered parameters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.checkpoint import LocalSource, open_checkpoint, read_catalogue
from llmtrap.errors import CheckpointError, UnsupportedError

Q = "model.layers.0.self_attn.q_proj"


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


LAYOUTS = {
    "mlx": ("adapters.safetensors", {f"{Q}.lora_a": ones(16, 4), f"{Q}.lora_b": ones(4, 16)}, "an adapter of MLX"),
    "kohya": (
        "style.safetensors",
        {
            "lora_unet_down_0_to_q.lora_down.weight": ones(4, 16),
            "lora_unet_down_0_to_q.lora_up.weight": ones(16, 4),
            "lora_unet_down_0_to_q.alpha": np.array(4, np.float32),
        },
        "kohya",
    ),
    "kohya, a text encoder's": ("x.safetensors", {"lora_te1_text_model_0_q.lora_down.weight": ones(4, 16)}, "kohya"),
    "LyCORIS, full": ("x.safetensors", {"lora_unet_mid_0.diff": ones(16, 16)}, "kohya"),
    "LoHa": ("x.safetensors", {"blocks.0.hada_w1_a": ones(16, 4), "blocks.0.hada_w1_b": ones(4, 16)}, "LyCORIS"),
    "LoKr": ("x.safetensors", {"blocks.0.lokr_w1": ones(4, 4), "blocks.0.lokr_w2": ones(4, 4)}, "LyCORIS"),
    "old diffusers": (
        "pytorch_lora_weights.safetensors",
        {"down_blocks.0.attn1.processor.to_q_lora.down.weight": ones(4, 16)},
        "kohya",
    ),
    "diffusers": (
        "pytorch_lora_weights.safetensors",
        {"unet.mid_block.attn.to_q.lora_A.weight": ones(4, 16), "unet.mid_block.attn.to_q.lora_B.weight": ones(16, 4)},
        "a LoRA file of diffusers",
    ),
    "diffusers, old parameter names": (
        "x.safetensors",
        {"text_encoder.layers.0.q_proj.lora_linear_layer.down.weight": ones(4, 16), "a.lora.down.weight": ones(4, 16)},
        "kohya",
    ),
    "peft without its configuration": (
        "weights.safetensors",
        {f"base_model.model.{Q}.lora_A.weight": ones(4, 16), f"base_model.model.{Q}.lora_B.weight": ones(16, 4)},
        "adapter_config.json",
    ),
    "peft, IA3": ("x.safetensors", {f"base_model.model.{Q}.ia3_l": ones(16, 1)}, "an adapter's factors"),
    "peft, VeRA": ("x.safetensors", {f"base_model.model.{Q}.vera_lambda_b": ones(16)}, "an adapter's factors"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_file_is_refused_by_its_layouts_name(tmp_path: Path, layout: str) -> None:
    file, tensors, words = LAYOUTS[layout]
    save_file(tensors, tmp_path / file)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "lora", "model": "org/base"}))
    for target in (tmp_path, tmp_path / file):
        with pytest.raises(UnsupportedError, match=words) as caught:
            open_checkpoint(str(target))
        assert caught.value.file == file
        assert caught.value.remedy


def test_numbered_copies_of_an_adapter_are_named_as_such(tmp_path: Path) -> None:
    _, tensors, words = LAYOUTS["mlx"]
    for file in ("adapters.safetensors", "0000100_adapters.safetensors"):
        save_file(tensors, tmp_path / file)
    with pytest.raises(UnsupportedError, match=words):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "beside",
    [
        {f"{Q}.base_layer.weight": ones(16, 16), f"{Q}.lora_A.default.weight": ones(4, 16)},
        {f"{Q}.base_layer.weight": ones(16, 16)},
        {f"{Q}.weight": ones(16, 16), f"{Q}.lora_A.weight": ones(2, 16), f"{Q}.lora_B.weight": ones(16, 2)},
        {f"{Q}.weight": ones(16, 16), f"{Q}.lora_A": ones(2, 16), f"{Q}.lora_B": ones(16, 2)},
        {"lm_head.original_module.weight": ones(9, 16), "lm_head.modules_to_save.default.weight": ones(9, 16)},
        {f"{Q}.base_layer.weight": ones(16, 16), f"{Q}.lora_A.speech.weight": ones(64, 16)},
        {f"base_model.model.{Q}.base_layer.weight": ones(16, 16), f"base_model.model.{Q}.ia3_l.default": ones(16, 1)},
    ],
)
def test_a_model_that_peft_still_wraps_is_refused_with_the_way_to_merge(
    tmp_path: Path, beside: dict[str, NDArray[np.float32]]
) -> None:
    save_file({"model.embed_tokens.weight": ones(9, 16), **beside}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedError, match=r"not merged|still wraps") as caught:
        open_checkpoint(str(tmp_path))
    assert "merge_and_unload" in str(caught.value.remedy)


def test_a_model_of_several_tasks_is_refused_and_the_remedy_gives_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    tables = {"roberta.embeddings.word_embeddings": (30, 12), "roberta.encoder.layers.0.mixer.Wqkv": (36, 12)}
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in tables.items()}
    sides = {
        "roberta.embeddings.word_embeddings": ((3, 30, 4), (3, 4, 12)),  # transposed: A [in, r], B [r, out]
        "roberta.encoder.layers.0.mixer.Wqkv": ((3, 4, 12), (3, 36, 4)),
    }
    saved = {f"{name}.parametrizations.weight.original": weight for name, weight in weights.items()}
    for name, shapes in sides.items():
        for side, shape in zip("AB", shapes, strict=True):
            factor = generator.normal(size=shape).astype(np.float32)
            saved[f"{name}.parametrizations.weight.0.lora_{side}"] = factor
    folder = tmp_path / "jina-embeddings-v3"
    folder.mkdir()
    save_file({**saved, "roberta.encoder.layers.0.mlp.fc1.weight": ones(24, 12)}, folder / "model.safetensors")
    config = {"lora_alpha": 2, "lora_rank": 4, "lora_adaptations": ["query", "passage", "matching"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="updates for 3 tasks") as caught:
        open_checkpoint(str(folder))
    assert "docs/targets.md, Several tasks in one file" in str(caught.value.remedy)

    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text("utf-8")
    (lines,) = re.findall(r"### Several tasks in one file.*?```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    for task, name in enumerate(config["lora_adaptations"]):
        checkpoint = open_checkpoint(str(tmp_path / f"jina-embeddings-v3-{name}"))
        found = {matrix.tensor: matrix.read(checkpoint.source) for matrix in checkpoint.matrices}
        assert len(found) == 3
        for module, weight in weights.items():
            a, b = (saved[f"{module}.parametrizations.weight.0.lora_{side}"][task] for side in "AB")
            update = a @ b if "embeddings" in module else b @ a
            np.testing.assert_allclose(found[f"{module}.weight"], weight + 0.5 * update, rtol=1e-5, atol=1e-5)


def test_weights_whose_names_only_resemble_an_updates_are_read(tmp_path: Path) -> None:
    names = [
        "model.layers.0.attn.w_lora.lora.0.weight", "base_layer.0.weight", "layers.0.kv_lora_proj.weight",
        "layers.0.q_a_proj.weight", "layers.0.explora.weight", "blocks.0.flora_a_proj.weight",
    ]  # fmt: skip
    save_file({name: ones(4, 5) for name in names}, tmp_path / "model.safetensors")
    assert len(open_checkpoint(str(tmp_path)).matrices) == len(names)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_empty_weights_say_that_they_were_not_gathered(tmp_path: Path, dtype: str) -> None:
    tensors = {f"{Q}.weight": np.zeros(0, dtype), "lm_head.weight": np.ones((4, 4), dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"q_proj\.weight: the weight is empty.*not gathered.*ZeRO-3"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["model.layers.0._flat_param", "_fsdp_wrapped_module._flat_param", "flat_param_0"])
def test_flat_parameters_are_refused_by_name(tmp_path: Path, name: str) -> None:
    save_file({name: ones(500)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="FSDP"):
        open_checkpoint(str(tmp_path))


def test_an_empty_bias_is_no_fault(tmp_path: Path) -> None:
    save_file({"a.weight": ones(4, 4), "a.bias": ones(0), "a.g_idx": np.zeros(0, np.int32)}, tmp_path / "m.safetensors")
    assert len(read_catalogue(LocalSource(tmp_path)).tensors) == 3
