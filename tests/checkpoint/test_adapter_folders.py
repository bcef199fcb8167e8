"""Adapters as people have them: new heads, grown vocabularies, tied heads, other names, other weights beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.checkpoint.adapters import is_adapter
from llmtrap.checkpoint.sources import open_source
from llmtrap.errors import CheckpointError, LlmtrapError, UnsupportedError

D, V = 12, 30
Q = "model.layers.0.self_attn.q_proj"
Tensors = dict[str, NDArray[Any]]


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


BASE: Tensors = {
    "model.embed_tokens.weight": draw(V, D, seed=1), f"{Q}.weight": draw(D, D, seed=2), "lm_head.weight": draw(V, D),
}  # fmt: skip
A, B = draw(4, D, seed=3), draw(D, 4, seed=4)
FACTORS: Tensors = {f"base_model.model.{Q}.lora_A.weight": A, f"base_model.model.{Q}.lora_B.weight": B}
UPDATED = BASE[f"{Q}.weight"] + 2 * B @ A


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write a base and an adapter, and open the adapter."""

    def write(tensors: Tensors, *, base: Tensors = BASE, tied: bool = False, **settings: Any) -> Checkpoint:
        adapter, folder = tmp_path / "adapter", tmp_path / "base"
        adapter.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        save_file(base, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": tied}))
        save_file(tensors, adapter / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 4, "lora_alpha": 8}
        (adapter / "adapter_config.json").write_text(json.dumps(config | settings))
        return open_checkpoint(str(adapter))

    return write


def values(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    return {matrix.id: matrix.read(checkpoint.source) for matrix in checkpoint.matrices}


def test_a_new_head_is_a_matrix_of_its_own(opened: Callable[..., Checkpoint]) -> None:
    score = draw(3, D, seed=5)
    checkpoint = opened(FACTORS | {"base_model.model.score.weight": score, "base_model.model.score.bias": score[:, 0]})
    read = values(checkpoint)
    assert set(read) == {"embedding", "layers.0.attention.q", "unembedding", "classifier"}
    np.testing.assert_allclose(read["layers.0.attention.q"], UPDATED, atol=1e-5)
    np.testing.assert_array_equal(read["classifier"], score)
    assert [item.tensor for item in checkpoint.skipped] == ["base_model.model.score.bias"]


def test_a_grown_vocabulary_replaces_the_bases(opened: Callable[..., Checkpoint]) -> None:
    grown = {"model.embed_tokens": draw(V + 8, D, seed=6), "lm_head": draw(V + 8, D, seed=7)}
    saved = {f"base_model.model.{name}.weight": tensor for name, tensor in grown.items()}
    checkpoint = opened(FACTORS | saved)
    assert {matrix.shape for matrix in checkpoint.matrices} == {(V + 8, D), (D, D)}
    read = values(checkpoint)
    np.testing.assert_array_equal(read["embedding"], grown["model.embed_tokens"])
    np.testing.assert_array_equal(read["unembedding"], grown["lm_head"])
    with pytest.raises(CheckpointError, match=r"F32 \[38, 13\] instead of \[30, 12\]"):
        opened(FACTORS | {"base_model.model.lm_head.weight": draw(V + 8, D + 1)})


def test_a_saved_head_of_a_tied_base_is_a_matrix_apart(opened: Callable[..., Checkpoint]) -> None:
    base = {name: tensor for name, tensor in BASE.items() if name != "lm_head.weight"}
    head = draw(V, D, seed=8)
    checkpoint = opened(FACTORS | {"base_model.model.lm_head.weight": head}, base=base, tied=True)
    read = values(checkpoint)
    assert set(read) == {"embedding", "layers.0.attention.q", "unembedding"}
    np.testing.assert_array_equal(read["unembedding"], head)
    np.testing.assert_array_equal(read["embedding"], BASE["model.embed_tokens.weight"])
    assert all(not matrix.aliases for matrix in checkpoint.matrices)


def test_factors_for_a_tied_head_leave_the_embedding_alone(opened: Callable[..., Checkpoint]) -> None:
    base = {name: tensor for name, tensor in BASE.items() if name != "lm_head.weight"}
    a, b = draw(4, D, seed=9), draw(V, 4, seed=10)
    checkpoint = opened({"base_model.model.lm_head.lora_A.weight": a, "base_model.model.lm_head.lora_B.weight": b},
                        base=base, tied=True)  # fmt: skip
    read = values(checkpoint)
    np.testing.assert_allclose(read["unembedding"], base["model.embed_tokens.weight"] + 2 * b @ a, atol=1e-5)
    np.testing.assert_array_equal(read["embedding"], base["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: re.sub(r"(lora_[AB])\.weight", r"\1.default.weight", name),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.replace("model.layers", "model._orig_mod.layers"),
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: name.replace("base_model.model.", "module.base_model.model.module."),
        lambda name: name.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
        lambda name: name.replace("base_model.model.model.", "base_model.model.model.model."),
    ],
)
def test_an_adapters_names_are_matched_whatever_wrapped_the_model(
    opened: Callable[..., Checkpoint], rename: Callable[[str], str]
) -> None:
    read = values(opened({rename(name): tensor for name, tensor in FACTORS.items()}))
    np.testing.assert_allclose(read["layers.0.attention.q"], UPDATED, atol=1e-5)


def test_a_base_saved_under_a_wrapper_is_matched(opened: Callable[..., Checkpoint]) -> None:
    read = values(opened(FACTORS, base={f"_orig_mod.{name}": tensor for name, tensor in BASE.items()}))
    np.testing.assert_allclose(next(v for v in read.values() if v.shape == (D, D)), UPDATED, atol=1e-5)


def test_modules_saved_under_an_adapters_name_are_read_and_the_bases_copy_is_not(
    opened: Callable[..., Checkpoint],
) -> None:
    head = draw(V, D, seed=11)
    saved = {
        "base_model.model.lm_head.modules_to_save.default.weight": head,
        "base_model.model.lm_head.original_module.weight": BASE["lm_head.weight"],
    }
    checkpoint = opened(FACTORS | saved)
    np.testing.assert_array_equal(values(checkpoint)["unembedding"], head)
    assert [item.reason for item in checkpoint.skipped] == ["the base's own copy of a module that is saved whole"]


def test_several_adapters_in_one_file_are_refused(opened: Callable[..., Checkpoint]) -> None:
    named = {name.replace(".weight", f".{which}.weight"): t for name, t in FACTORS.items() for which in ("one", "two")}
    with pytest.raises(UnsupportedError, match="several adapters: one and two"):
        opened(named)


def test_empty_factors_say_that_they_were_not_gathered(opened: Callable[..., Checkpoint]) -> None:
    with pytest.raises(CheckpointError, match="not gathered before saving"):
        opened({name: np.zeros(0, np.float32) for name in FACTORS})


def test_an_adapter_in_a_pickle_is_read_like_any_other(opened: Callable[..., Checkpoint], tmp_path: Path) -> None:
    opened(FACTORS)
    adapter = tmp_path / "adapter"
    (adapter / "adapter_model.safetensors").unlink()
    tensors = {name: torch.from_numpy(tensor.T.copy()).T for name, tensor in FACTORS.items()}
    torch.save(tensors, adapter / "adapter_model.bin")
    read = values(open_checkpoint(str(adapter)))
    np.testing.assert_allclose(read["layers.0.attention.q"], UPDATED, atol=1e-5)


@pytest.mark.parametrize("name", ["pytorch_model_fsdp.bin", "pytorch_model.bin", "optimizer.bin", "training_args.bin"])
def test_pickles_beside_an_adapter_leave_it_one(opened: Callable[..., Checkpoint], tmp_path: Path, name: str) -> None:
    opened(FACTORS)
    (tmp_path / "adapter" / name).write_bytes(b"PK\3\4")
    checkpoint = open_checkpoint(str(tmp_path / "adapter"))
    np.testing.assert_allclose(values(checkpoint)["layers.0.attention.q"], UPDATED, atol=1e-5)
    assert [item.tensor for item in checkpoint.skipped] == [f"{name} (file)"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_what_llava_trains_whole_beside_its_adapter_is_audited(
    opened: Callable[..., Checkpoint], tmp_path: Path, suffix: str
) -> None:
    opened(FACTORS)
    projector = {"base_model.model.model.mm_projector.0.weight": draw(D, 7, seed=12)}
    path = tmp_path / "adapter" / f"non_lora_trainables.{suffix}"
    if suffix == "bin":
        torch.save({name: torch.from_numpy(tensor) for name, tensor in projector.items()}, path)
    else:
        save_file(projector, path)
    read = values(open_checkpoint(str(tmp_path / "adapter")))
    np.testing.assert_allclose(read["layers.0.attention.q"], UPDATED, atol=1e-5)
    assert sum(value.shape == (D, 7) for value in read.values()) == 1


def test_other_weights_beside_an_adapter_are_named_and_never_pass_unmeasured(
    opened: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    opened(FACTORS)
    save_file({"extra.weight": draw(3, 3)}, tmp_path / "adapter" / "vision.safetensors")
    (item,) = open_checkpoint(str(tmp_path / "adapter")).skipped
    assert (item.tensor, item.kind) == ("vision.safetensors (file)", "unmeasured")
    assert item.reason == "beside the adapter, which is what is audited; not looked at"


@pytest.mark.parametrize("file", ["model.safetensors", "model-00001-of-00001.safetensors"])
def test_a_whole_model_beside_an_adapter_is_what_is_audited(
    opened: Callable[..., Checkpoint], tmp_path: Path, file: str
) -> None:
    opened(FACTORS)
    save_file(BASE, tmp_path / "adapter" / file)
    assert not is_adapter(open_source(str(tmp_path / "adapter")))
    checkpoint = open_checkpoint(str(tmp_path / "adapter"))
    assert [matrix.encoding for matrix in checkpoint.matrices] == ["F32"] * 3
    (item,) = checkpoint.skipped
    assert (item.tensor, item.kind) == ("adapter_model.safetensors (file)", "unmeasured")
    assert "an adapter (LoRA) beside whole weights" in item.reason


def test_half_a_pair_is_refused(opened: Callable[..., Checkpoint], tmp_path: Path) -> None:
    opened(FACTORS)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    half = {name: tensor for name, tensor in load_file(path).items() if "lora_A" in name}
    with pytest.raises(LlmtrapError, match="without its partner"):
        opened(half)
