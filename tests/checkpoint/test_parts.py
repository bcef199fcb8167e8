"""Models of several parts: diffusers pipelines and sentence-transformers models as one checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrap.audit import AuditSettings, audit
from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import CheckpointError, TargetError, UnsafeFileError

BERT = {f"encoder.layer.{k}.output.dense.weight": np.full((4, 6), k, np.float32) for k in range(2)}
UNET = {"down_blocks.0.to_q.weight": np.ones((4, 4), np.float32), "norm.bias": np.ones(4, np.float32)}


def part(folder: Path, tensors: dict[str, np.ndarray], config: dict[str, object], name: str = "model") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def pipeline(folder: Path, **components: list[str | None]) -> Path:
    part(folder / "unet", UNET, {"_class_name": "UNet2DConditionModel"}, "diffusion_pytorch_model")
    part(folder / "text_encoder", BERT, {"model_type": "bert"})
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(components))
    return folder


COMPONENTS: dict[str, list[str | None]] = {
    "text_encoder": ["transformers", "BertModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "BertTokenizer"],
    "safety_checker": [None, None],
}


@pytest.mark.parametrize("components", [{}, COMPONENTS])
def test_all_components_of_a_pipeline_are_one_audit(tmp_path: Path, components: dict[str, list[str | None]]) -> None:
    pipeline(tmp_path, **components)
    save_file(UNET, tmp_path / "sd_all_in_one.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    ids = ["text_encoder/layers.0.mlp.down", "text_encoder/layers.1.mlp.down", "unet/diffusion.layers.0.attention.q"]
    assert [matrix.id for matrix in checkpoint.matrices] == ids
    assert checkpoint.matrices[2].tensor == "unet/down_blocks.0.to_q.weight"
    assert [file.name for file in checkpoint.catalogue.files] == [
        "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    assert {item.tensor: item.reason.split(" (")[0].split(",")[0] for item in checkpoint.skipped} == {
        "unet/norm.bias": "one-dimensional",
        "sd_all_in_one.safetensors (file)": "beside the parts",
    }
    assert [float(matrix.read(checkpoint.source).mean()) for matrix in checkpoint.matrices] == [0.0, 1.0, 1.0]
    report = audit(str(tmp_path), settings=AuditSettings(include=("unet/*",), traps="certify"), journal=False)
    assert [matrix.id for matrix in report.matrices] == ["unet/diffusion.layers.0.attention.q"]


def test_a_component_without_its_weights_is_no_whole_pipeline(tmp_path: Path) -> None:
    pipeline(tmp_path, **COMPONENTS, vae=["diffusers", "AutoencoderKL"])
    with pytest.raises(CheckpointError, match=r"names the part 'vae' \(AutoencoderKL\), and there are no weights"):
        open_checkpoint(str(tmp_path))
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (tmp_path / "vae").symlink_to(elsewhere)
    with pytest.raises(UnsafeFileError, match=r"names the part 'vae'.*, which is a link"):
        open_checkpoint(str(tmp_path))


def test_one_component_is_audited_by_its_folder(tmp_path: Path) -> None:
    pipeline(tmp_path, **COMPONENTS)
    for checkpoint in (open_checkpoint(str(tmp_path / "unet")), open_checkpoint(str(tmp_path), subfolder="unet")):
        assert [matrix.id for matrix in checkpoint.matrices] == ["diffusion.layers.0.attention.q"]


def test_a_components_unreadable_weights_stop_the_whole(tmp_path: Path) -> None:
    pipeline(tmp_path, **COMPONENTS)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "unet" / "model.onnx")
    with pytest.raises(CheckpointError, match="ONNX"):
        open_checkpoint(str(tmp_path))


def modules(folder: Path, *paths: tuple[str, str]) -> None:
    listed = [
        {"idx": k, "name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for k, (path, kind) in enumerate(paths)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


DENSE = {"linear.weight": np.ones((3, 4), np.float32), "linear.bias": np.ones(3, np.float32)}


@pytest.mark.parametrize("first", ["", "0_Transformer"])
def test_all_modules_of_a_sentence_transformer_are_one_audit(tmp_path: Path, first: str) -> None:
    part(tmp_path / first, BERT, {"model_type": "bert"})
    part(tmp_path / "2_Dense", DENSE, {"in_features": 4})
    (tmp_path / "1_Pooling").mkdir()
    modules(tmp_path, (first, "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_N", "Normalize"))
    checkpoint = open_checkpoint(str(tmp_path))
    ids = ["layers.0.mlp.down", "layers.1.mlp.down", "2_Dense/linear"]
    assert [matrix.id for matrix in checkpoint.matrices] == ids
    assert [item.tensor for item in checkpoint.skipped] == ["2_Dense/linear.bias"]
    (tmp_path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names the part '2_Dense/'.*no weights of it"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"), [("{}", "no list of modules"), ("[1]", "no list of modules"), ("[", "not valid JSON")]
)
def test_a_broken_list_of_modules_is_refused(tmp_path: Path, text: str, words: str) -> None:
    part(tmp_path, BERT, {"model_type": "bert"})
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(str(tmp_path))


def test_modules_outside_the_folder_are_refused(tmp_path: Path) -> None:
    part(tmp_path, BERT, {"model_type": "bert"})
    modules(tmp_path, ("../other", "Transformer"))
    with pytest.raises(UnsafeFileError, match="no plain path"):
        open_checkpoint(str(tmp_path))


def test_subfolders_that_nothing_joins_are_all_named(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "checkpoint-500"):
        part(tmp_path / name, BERT, {"model_type": "bert"})
    with pytest.raises(TargetError) as caught:
        open_checkpoint(str(tmp_path))
    assert "only in the subfolders 'checkpoint-500' and 'checkpoint-1000'" in caught.value.problem
    assert str(tmp_path / "checkpoint-1000") in str(caught.value.remedy)
