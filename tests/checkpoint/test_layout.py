"""Which files are the checkpoint, what is left aside, and what is said where there is nothing to audit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrap.checkpoint import LocalSource, Skipped, open_checkpoint, read_catalogue
from llmtrap.errors import CheckpointError, TargetError, UnsafeFileError, UnsupportedError

ONE = {"a.weight": np.ones((3, 2), np.float32)}
OTHER = {"b.weight": np.ones((2, 3), np.float32)}


def index(folder: Path, weight_map: dict[str, str], name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def test_second_copies_and_other_weight_files_are_left_aside_with_reasons(tmp_path: Path) -> None:
    for name in ("original", "metal", "checkpoint-500"):
        (tmp_path / name).mkdir()
    save_file(ONE, tmp_path / "model-00000-of-00001.safetensors")
    save_file(OTHER, tmp_path / "model-00001-of-00001.safetensors")
    index(tmp_path, {"b.weight": "model-00001-of-00001.safetensors", "a.weight": "model-00000-of-00001.safetensors"})
    for name in ("original/model.safetensors", "consolidated.safetensors", "model.fp16.safetensors"):
        save_file(ONE, tmp_path / name)
    save_file(OTHER, tmp_path / "checkpoint-500" / "model.safetensors")
    for name in ("metal/model.bin", "pytorch_model.bin", "optimizer.pt", "model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"never opened")
    catalogue = read_catalogue(LocalSource(tmp_path))
    assert list(catalogue.tensors) == ["a.weight", "b.weight"]
    assert [file.name for file in catalogue.files] == [f"model-0000{k}-of-00001.safetensors" for k in (0, 1)]
    by_itself = "audit it by giving that folder as the target"
    assert {item.tensor: item.reason for item in catalogue.skipped} == {
        "checkpoint-500/model.safetensors (file)": "in a subfolder, so another checkpoint or a second copy; "
        + by_itself,
        "consolidated.safetensors (file)": "a second copy of the weights under the original names",
        "metal/model.bin (file)": "a second copy of the weights, in another container",
        "model.fp16.safetensors (file)": "the same weights in another precision; the files that a library loads "
        "unasked are audited",
        "model.onnx (file)": "another format (ONNX), which is not read",
        "optimizer.pt (file)": "state of a training run, not weights; never opened",
        "original/model.safetensors (file)": f"a second copy of the weights under the original names; {by_itself}",
        "pytorch_model.bin (file)": "in another container than the files that are audited",
    }


def test_a_single_file_wins_over_its_neighbours_and_can_be_the_target_itself(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    save_file(OTHER, tmp_path / "model.fp16.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert list(read_catalogue(LocalSource(tmp_path)).tensors) == ["a.weight"]
    alone = open_checkpoint(str(tmp_path / "model.fp16.safetensors"))
    assert (list(alone.catalogue.tensors), alone.family) == (["b.weight"], "llama")


def test_several_files_without_an_index_are_read_together_in_natural_order(tmp_path: Path) -> None:
    for k in (10, 9, 1):
        save_file({f"layers.{k}.weight": np.ones((2, 2), np.float32)}, tmp_path / f"shard-{k}.safetensors")
    assert list(read_catalogue(LocalSource(tmp_path)).tensors) == [f"layers.{k}.weight" for k in (1, 9, 10)]


def test_a_consolidated_file_alone_is_the_checkpoint(tmp_path: Path) -> None:
    save_file({"layers.0.feed_forward.w1.weight": ONE["a.weight"]}, tmp_path / "consolidated.safetensors")
    assert [matrix.id for matrix in open_checkpoint(str(tmp_path)).matrices] == ["layers.0.mlp.gate"]


def test_an_index_under_another_name_is_used(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "weights-1.safetensors")
    save_file(OTHER, tmp_path / "stray.safetensors")
    index(tmp_path, {"a.weight": "weights-1.safetensors"}, "weights.safetensors.index.json")
    assert list(read_catalogue(LocalSource(tmp_path)).tensors) == ["a.weight"]


def test_a_tensor_in_two_shards_is_never_wholly_measured_whatever_the_index_says(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "1.safetensors")
    save_file(ONE | OTHER, tmp_path / "2.safetensors")
    index(tmp_path, {"a.weight": "1.safetensors", "b.weight": "2.safetensors"})
    catalogue = read_catalogue(LocalSource(tmp_path))
    assert catalogue.tensors["a.weight"].span.file == "1.safetensors"
    reason = (
        "in two shards; the index places it in 1.safetensors, and libraries may load this one: remove one of the two"
    )
    assert catalogue.skipped == (Skipped("a.weight (in 2.safetensors)", reason, "unmeasured", bytes=24),)


def test_a_missing_shard_is_named_with_what_to_do(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "1.safetensors")
    index(tmp_path, {"a.weight": "1.safetensors", "b.weight": "2.safetensors"})
    with pytest.raises(CheckpointError) as caught:
        read_catalogue(LocalSource(tmp_path))
    assert caught.value.message == (
        "2.safetensors: the shard that model.safetensors.index.json names is missing. "
        "Fetch the missing file into the checkpoint's folder"
    )


@pytest.mark.parametrize(
    ("weight_map", "tensor", "problem"),
    [
        ({"a.weight": "1.safetensors", "c.weight": "1.safetensors"}, "c.weight", "no shard has it"),
        ({"a.weight": "1.safetensors", "b.weight": "1.safetensors"}, "b.weight", "no shard has it"),
        ({"b.weight": "2.safetensors"}, None, None),
        ({"c.weight": "2.safetensors"}, "c.weight", "no shard has it"),
    ],
)
def test_an_index_and_shards_that_contradict_one_another(
    tmp_path: Path, weight_map: dict[str, str], tensor: str | None, problem: str | None
) -> None:
    save_file(ONE, tmp_path / "1.safetensors")
    save_file(OTHER, tmp_path / "2.safetensors")
    index(tmp_path, weight_map)
    if tensor is None:
        assert list(read_catalogue(LocalSource(tmp_path)).tensors) == ["b.weight"]
        return
    with pytest.raises(CheckpointError, match=problem) as caught:
        read_catalogue(LocalSource(tmp_path))
    assert caught.value.tensor == tensor
    assert "different versions" in str(caught.value.remedy)


def test_one_tensor_in_two_files_without_an_index_is_refused(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "1.safetensors")
    save_file(ONE, tmp_path / "2.safetensors")
    with pytest.raises(CheckpointError, match=r"2\.safetensors: a\.weight: this tensor is in 1\.safetensors too"):
        read_catalogue(LocalSource(tmp_path))


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([], TargetError, "no weights here.*llmtrap reads safetensors"),
        (["README.md", "config.json"], TargetError, "no weights here"),
        (
            ["original/model.safetensors"],
            TargetError,
            "only in the subfolder 'original'. Give that folder as the target",
        ),
        (["weights.pkl"], UnsafeFileError, "weights.pkl: the weights are a pickle.*never opened"),
        (["pytorch_model.bin"], CheckpointError, "pytorch_model.bin: this is no file of torch.save"),
        (["model.pt", "optimizer.pt"], CheckpointError, "model.pt: this is no file of torch.save"),
        (["step/model.pt"], TargetError, "only in the subfolder 'step'"),
        (["optimizer.pt"], TargetError, "no weights here"),
        (["adapter_model.safetensors", "adapter_config.json"], UnsupportedError, "an adapter.*merge_and_unload"),
        (["model.ggml"], UnsupportedError, "model.ggml: GGML is not a format.*made from"),
        (["model.onnx"], UnsupportedError, "ONNX"),
        (["tf_model.h5"], UnsupportedError, "HDF5"),
        (["flax_model.msgpack"], UnsupportedError, "Flax"),
        (["__0_0.distcp"], CheckpointError, r"\.metadata: .*distributed checkpoint.*missing"),
        (["step/.metadata", "step/__0_0.distcp"], TargetError, "only in the subfolder 'step'"),
        (["mp_rank_00/model_optim_rng.pt"], UnsupportedError, "Megatron"),
        (["model.nemo"], UnsupportedError, "NeMo"),
    ],
)
def test_a_target_without_readable_weights_is_refused_with_the_reason(
    tmp_path: Path, files: list[str], error: type[Exception], message: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(error, match=message) as caught:
        read_catalogue(LocalSource(tmp_path))
    assert type(caught.value) is error


def test_a_single_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UnsafeFileError, match=r"model\.bin: a pickle that torch\.save did not write"):
        open_checkpoint(str(tmp_path / "model.bin"))
