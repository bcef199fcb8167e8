"""A LoRA adapter by name: its base is found by the name it gives, and what is audited is base + ΔW."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save
from tests.support.audits import without_times
from tests.support.hub import LoopbackHub

import llmtrap
from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import AccessError, LlmtrapError, TargetError, UnsafeFileError, UnsupportedError

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
SETTINGS = llmtrap.AuditSettings(shuffles=2)


class Models:
    """A base, an adapter of rank 2 on its `q_proj`, and the two merged."""

    def __init__(self) -> None:
        draw = np.random.default_rng(1)
        self.a = draw.normal(size=(2, 60)).astype(np.float32)
        self.b = draw.normal(size=(80, 2)).astype(np.float32)
        self.weights = {f"{name}.weight": draw.normal(size=(80, 60)).astype(np.float32) for name in (Q, UP)}

    def base(self) -> dict[str, bytes]:
        return {"config.json": b'{"model_type": "llama"}', "model.safetensors": save(self.weights)}

    def merged(self) -> dict[str, bytes]:
        update = (2.0 * self.b.astype(np.float64) @ self.a.astype(np.float64)).astype(np.float32)
        weights = {**self.weights, f"{Q}.weight": self.weights[f"{Q}.weight"] + update}
        return {**self.base(), "model.safetensors": save(weights)}

    def adapter(self, **changes: Any) -> dict[str, bytes]:
        config = {"base_model_name_or_path": "org/base", "peft_type": "LORA", "r": 2, "lora_alpha": 4, **changes}
        factors = {f"base_model.model.{Q}.lora_{side}.weight": getattr(self, side.lower()) for side in "AB"}
        return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(factors)}


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.fixture
def both(hub: LoopbackHub, models: Models) -> str:
    """The adapter's name; its base is on the hub too. Returned is the base's commit."""
    hub.add("org/lora", models.adapter())
    return hub.add("org/base", models.base())


def written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def values(checkpoint: Checkpoint) -> dict[str, NDArray[np.floating]]:
    with checkpoint.source as source:  # type: ignore[attr-defined]
        return {matrix.id: matrix.read(source) for matrix in checkpoint.matrices}


def test_the_matrices_are_those_of_the_merged_model(
    hub: LoopbackHub, both: str, models: Models, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint("org/lora")
    merged = open_checkpoint(str(written(tmp_path / "merged", models.merged())))
    assert [(m.id, m.shape) for m in checkpoint.matrices] == [(m.id, m.shape) for m in merged.matrices]
    for mine, theirs in zip(checkpoint.matrices, merged.matrices, strict=True):
        np.testing.assert_array_equal(mine.read(checkpoint.source), theirs.read(merged.source))
    assert [m.encoding for m in checkpoint.matrices] == ["F32", "F32 + LoRA (rank 2, scale 2)"]
    checkpoint.source.close()


def test_the_report_is_the_local_one_and_names_the_base(
    hub: LoopbackHub, both: str, models: Models, tmp_path: Path
) -> None:
    local = written(tmp_path / "lora", models.adapter(base_model_name_or_path=str(tmp_path / "base")))
    written(tmp_path / "base", models.base())
    ours, theirs = llmtrap.audit("org/lora", SETTINGS), llmtrap.audit(str(local), SETTINGS)
    assert (ours.target.name, ours.target.kind, ours.target.base) == ("org/lora", "hub", f"org/base@{both}")
    assert [file.path for file in ours.target.files] == ["model.safetensors", "(adapter)/adapter_model.safetensors"]
    assert all((file.digest or "").startswith("sha256:") for file in ours.target.files)
    assert theirs.target.base == "base"
    mine, there = without_times(ours), without_times(theirs)
    del mine["target"], there["target"]
    assert mine == there


def test_each_byte_goes_over_the_wire_once(hub: LoopbackHub, both: str, models: Models) -> None:
    llmtrap.audit("org/lora", SETTINGS)
    held = [models.base()["model.safetensors"], models.adapter()["adapter_model.safetensors"]]
    small = [models.base()["config.json"], models.adapter()["adapter_config.json"]]
    assert hub.bytes_sent <= sum(map(len, held + small))


def test_the_base_at_the_revision_that_the_adapter_names(hub: LoopbackHub, models: Models) -> None:
    old = hub.add("org/base", models.base(), ref="v1")
    hub.add("org/base", models.merged())
    hub.add("org/lora", models.adapter(revision="v1"))
    checkpoint = open_checkpoint("org/lora")
    assert checkpoint.catalogue.base is not None
    assert checkpoint.catalogue.base.label == f"org/base@{old}"


def test_a_configuration_of_the_base_beside_the_adapter_makes_it_no_checkpoint(
    hub: LoopbackHub, both: str, models: Models
) -> None:
    hub.add("org/lora", {**models.adapter(), "config.json": b'{"model_type": "llama"}'})
    assert open_checkpoint("org/lora").catalogue.base is not None


def test_an_adapter_beside_a_checkpoint_is_left_aside(hub: LoopbackHub, models: Models) -> None:
    hub.add("org/model", {**models.base(), **models.adapter()})
    checkpoint = open_checkpoint("org/model")
    assert checkpoint.catalogue.base is None
    assert [item.tensor for item in checkpoint.skipped] == ["adapter_model.safetensors (file)"]


def test_a_hubs_adapter_cannot_choose_a_folder_of_this_machine(
    hub: LoopbackHub, both: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "org" / "base", models.merged())
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint("org/lora")
    assert checkpoint.catalogue.base is not None
    assert checkpoint.catalogue.base.kind == "hub"
    hub.add("org/lora", models.adapter(base_model_name_or_path=str(tmp_path / "org" / "base")))
    with pytest.raises(TargetError, match=r"adapter_config\.json: the adapter's base model '/.*/base': no such file"):
        open_checkpoint("org/lora")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"base_model_name_or_path": None}, TargetError, "does not name its base model. Correct base_model_name"),
        ({"base_model_name_or_path": "org/none"}, AccessError, "base model 'org/none': there is no model repository"),
        ({"base_model_name_or_path": "datasets/org/x"}, TargetError, "'datasets/org/x': .* named as a dataset"),
        ({"base_model_name_or_path": "org/lora"}, UnsupportedError, "'org/lora': it is an adapter itself. .*merge"),
        (
            {"base_model_name_or_path": "org/pickled"},
            UnsafeFileError,
            "'org/pickled': a pickle that torch.save",
        ),
        ({"base_model_name_or_path": "org/gated"}, AccessError, "'org/gated': .* is gated, .*hf auth login"),
        ({"peft_type": "LOHA"}, UnsupportedError, "an adapter of type LOHA; only LORA is read. Merge it"),
    ],
)
def test_a_base_that_cannot_be_had(
    hub: LoopbackHub, both: str, models: Models, changes: dict[str, Any], kind: type[LlmtrapError], words: str
) -> None:
    hub.add("org/lora", models.adapter(**changes))
    hub.add("org/pickled", {"pytorch_model.bin": b"\x80\x02."})
    hub.add("org/gated", models.base())
    hub.repositories["org/gated"].gated = True
    with pytest.raises(kind, match=words):
        open_checkpoint("org/lora")


@pytest.mark.parametrize("whole", [False, True])
def test_factors_without_their_configuration_are_no_matrices(models: Models, tmp_path: Path, whole: bool) -> None:
    files = models.adapter() if whole else {"adapter_model.safetensors": models.adapter()["adapter_model.safetensors"]}
    folder = written(tmp_path / "lora", files)
    target = folder / "adapter_model.safetensors" if whole else folder
    with pytest.raises(
        UnsupportedError, match=r"adapter's factors .* without its adapter_config\.json. Give the folder"
    ):
        open_checkpoint(str(target))


def test_another_models_base(hub: LoopbackHub, both: str, models: Models) -> None:
    hub.add("org/base", {"model.safetensors": save({"other.weight": np.eye(4, dtype=np.float32)})})
    with pytest.raises(LlmtrapError, match="the base model has no such module"):
        open_checkpoint("org/lora")
