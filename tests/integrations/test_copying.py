"""The copy of the weights that training waits for, and the checkpoint that is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.support.tiny_llama import tiny_llama

from llmtrap.errors import UnsupportedError
from llmtrap.integrations.copying import WeightCopy
from llmtrap.integrations.kept import CheckpointBeforeTrap


def test_the_copy_is_of_the_moment_and_its_memory_is_used_again() -> None:
    model, copy = tiny_llama(), WeightCopy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = copy.take(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())
    places = {name: tensor.data_ptr() for name, tensor in first.items()}
    second = copy.take(model)
    assert {name: tensor.data_ptr() for name, tensor in second.items()} == places
    assert all(torch.equal(second[name], tensor) for name, tensor in model.state_dict().items())


def test_tied_embeddings_are_copied_once() -> None:
    taken = WeightCopy().take(tiny_llama(tied=True))
    assert taken["lm_head.weight"] is taken["model.embed_tokens.weight"]


def test_what_is_frozen_is_copied_again_only_when_it_was_written_to() -> None:
    model, copy = tiny_llama(), WeightCopy()
    model.requires_grad_(False)
    copy.take(model)
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] = 5.0
    assert copy.take(model)["model.layers.0.mlp.up_proj.weight"][0, 0] == 5.0


def test_sharded_weights_are_refused_by_name() -> None:
    model = torch.nn.Linear(4, 4)
    model.weight.ds_id = 3  # type: ignore[assignment]  # what DeepSpeed's ZeRO-3 puts on a parameter
    with pytest.raises(UnsupportedError, match=r"weight: the weights of this model are spread .*llmtrap watch DIR"):
        WeightCopy().take(model)
    with pytest.raises(UnsupportedError, match="meta device"):
        WeightCopy().take(torch.nn.Linear(4, 4, device="meta"))


def saved(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_text(f"weights of {step}")
    return path


def test_of_the_clean_checkpoints_the_newest_is_kept_and_what_comes_after_is_not(tmp_path: Path) -> None:
    kept = CheckpointBeforeTrap()
    for step in (5, 10, 15):
        kept.saved(step, saved(tmp_path, step))
    kept.clean(12)
    for step in (5, 10, 15):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    assert kept.trapped() == tmp_path / "before-trap-checkpoint-10"
    kept.saved(20, saved(tmp_path, 20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before-trap-checkpoint-10", "checkpoint-20"]
    assert (tmp_path / "before-trap-checkpoint-10" / "model.safetensors").read_text() == "weights of 10"


def test_a_checkpoint_in_one_file(tmp_path: Path) -> None:
    kept, file = CheckpointBeforeTrap(), tmp_path / "step=5.ckpt"
    file.write_text("weights")
    kept.clean(7)
    kept.saved(5, file)
    file.unlink()
    assert kept.trapped() == tmp_path / "before-trap-step=5.ckpt"


def test_nothing_clean_keeps_nothing(tmp_path: Path) -> None:
    kept = CheckpointBeforeTrap()
    kept.saved(5, saved(tmp_path, 5))
    assert kept.trapped() is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
