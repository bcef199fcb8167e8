"""Folders as people have them: stale files beside new ones, shards without an index, pointers, pages, variants."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrap.checkpoint import Catalogue, LocalSource, open_checkpoint, read_catalogue
from llmtrap.errors import CheckpointError, UnsafeFileError

A = {"layers.0.a.weight": np.ones((3, 2), np.float32)}
B = {"layers.1.b.weight": np.ones((2, 3), np.float32)}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 988097824\n"
PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>\n" * 30


def index(folder: Path, weight_map: dict[str, str], name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def read(folder: Path) -> Catalogue:
    return read_catalogue(LocalSource(folder))


def reasons(catalogue: Catalogue) -> dict[str, str]:
    return {item.tensor: item.reason for item in catalogue.skipped}


def shards(folder: Path, name: str = "model-{:05d}-of-{:05d}.safetensors", count: int = 2, first: int = 1) -> list[str]:
    """Shards of one matrix each, numbered from `first`, and their names."""
    names = [name.format(first + k, count) for k in range(count if first else count + 1)]
    for k, file in enumerate(names):
        save_file({f"layers.{k}.w.weight": np.full((2, 2), k, np.float32)}, folder / file)
    return names


def test_a_single_file_beside_an_index_of_other_shards_is_what_libraries_load(tmp_path: Path) -> None:
    old = shards(tmp_path)
    index(tmp_path, {f"layers.{k}.w.weight": file for k, file in enumerate(old)})
    save_file(A, tmp_path / "model.safetensors")
    save_file(A, tmp_path / "model.fp16.safetensors")
    catalogue = read(tmp_path)
    assert list(catalogue.tensors) == list(A)
    stale = "left over from another save: the single file beside it is what libraries load"
    assert all(reasons(catalogue)[f"{file} (file)"].startswith(stale) for file in old)
    assert "in another precision" in reasons(catalogue)["model.fp16.safetensors (file)"]


def test_a_stale_index_of_shards_that_are_gone_is_no_reason_to_refuse(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model.safetensors")
    index(tmp_path, {"x": "gone.safetensors"})
    assert list(read(tmp_path).tensors) == list(A)


def test_an_index_that_names_the_single_file_counts(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model.safetensors")
    save_file(B, tmp_path / "more.safetensors")
    index(tmp_path, dict.fromkeys(A, "model.safetensors") | dict.fromkeys(B, "more.safetensors"))
    assert list(read(tmp_path).tensors) == [*A, *B]


@pytest.mark.parametrize(
    ("name", "count", "first", "gone", "missing"),
    [
        ("model-{:05d}-of-{:05d}.safetensors", 3, 1, 1, "model-00002-of-00003.safetensors"),
        ("model-{:05d}-of-{:05d}.safetensors", 3, 1, 2, "model-00003-of-00003.safetensors"),
        ("model-{:05d}-of-{:05d}.safetensors", 2, 0, 2, "model-00002-of-00002.safetensors"),
        ("model--{:05d}-of-{:05d}.safetensors", 2, 1, 0, "model--00001-of-00002.safetensors"),
        ("model_{}_of_{}.safetensors", 3, 1, 0, "model_1_of_3.safetensors"),
        ("consolidated-{:05d}-of-{:05d}.safetensors", 2, 1, 1, "consolidated-00002-of-00002.safetensors"),
        ("x.bf16-{:05d}-of-{:05d}.safetensors", 3, 1, 1, "x.bf16-00002-of-00003.safetensors"),
        ("x-{:05d}-of-{:05d}.bf16.safetensors", 3, 1, 1, "x-00002-of-00003.bf16.safetensors"),
        ("model.safetensors-{:05d}-of-{:05d}.safetensors", 2, 1, 0, "model.safetensors-00001-of-00002.safetensors"),
    ],
)
def test_a_shard_that_the_names_prove_missing_is_named(
    tmp_path: Path, name: str, count: int, first: int, gone: int, missing: str
) -> None:
    names = shards(tmp_path, name, count, first)
    assert len(read(tmp_path).tensors) == len(names)
    (tmp_path / names[gone]).unlink()
    with pytest.raises(CheckpointError, match="one of the shards is missing") as caught:
        read(tmp_path)
    assert caught.value.file == missing


def test_one_shard_alone_is_no_checkpoint(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model-00001-of-00012.safetensors")
    with pytest.raises(CheckpointError, match="1 of 12 are here"):
        read(tmp_path)


def test_shards_of_two_saves_are_refused(tmp_path: Path) -> None:
    shards(tmp_path, count=2)
    save_file(A, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors"):
        read(tmp_path)


def test_an_index_of_a_variant_is_read_like_any_other(tmp_path: Path) -> None:
    stem = "diffusion_pytorch_model"
    names = shards(tmp_path, stem + ".bf16-{:05d}-of-{:05d}.safetensors")
    index(
        tmp_path, {f"layers.{k}.w.weight": file for k, file in enumerate(names)}, f"{stem}.safetensors.index.bf16.json"
    )
    assert len(read(tmp_path).tensors) == 2
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=r"index\.bf16\.json names is missing"):
        read(tmp_path)


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "model", "unet"])
@pytest.mark.parametrize("variant", ["fp16", "bf16", "fp32", "non_ema", "fp8_e4m3fn"])
def test_of_two_precisions_the_one_without_a_variant_counts(tmp_path: Path, stem: str, variant: str) -> None:
    save_file(A, tmp_path / f"{stem}.safetensors")
    save_file(A, tmp_path / f"{stem}.{variant}.safetensors")
    catalogue = read(tmp_path)
    assert [file.name for file in catalogue.files] == [f"{stem}.safetensors"]
    assert "in another precision" in reasons(catalogue)[f"{stem}.{variant}.safetensors (file)"]


def test_of_variants_alone_the_widest_counts(tmp_path: Path) -> None:
    for variant in ("fp16", "bf16", "fp32"):
        save_file(A, tmp_path / f"model.{variant}.safetensors")
    assert [file.name for file in read(tmp_path).files] == ["model.fp32.safetensors"]


def test_a_variants_index_gives_way_to_weights_without_a_variant(tmp_path: Path) -> None:
    save_file(A, tmp_path / "diffusion_pytorch_model.safetensors")
    save_file(A, tmp_path / "diffusion_pytorch_model.bf16.safetensors")
    place = dict.fromkeys(A, "diffusion_pytorch_model.bf16.safetensors")
    index(tmp_path, place, "diffusion_pytorch_model.safetensors.index.bf16.json")
    assert [file.name for file in read(tmp_path).files] == ["diffusion_pytorch_model.safetensors"]


def test_two_indexes_of_unknown_stems_are_refused(tmp_path: Path) -> None:
    save_file(A, tmp_path / "1.safetensors")
    save_file(B, tmp_path / "2.safetensors")
    index(tmp_path, dict.fromkeys(A, "1.safetensors"), "one.safetensors.index.json")
    index(tmp_path, dict.fromkeys(B, "2.safetensors"), "two.safetensors.index.json")
    with pytest.raises(CheckpointError, match="there is another index"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "Git LFS pointer.*git lfs pull"),
        (PAGE, "web page"),
        ("<html lang=en>" + PAGE, "web page"),
        ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        ("Entry not found", "server's error message"),
        ('{"error":"Repository not found"}', "server's error message"),
    ],
)
def test_what_is_no_weight_file_is_named_as_what_it_is(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "model.safetensors").write_text(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read(tmp_path)
    assert caught.value.file == "model.safetensors"


def test_a_pointer_for_one_shard_or_for_the_index_is_named(tmp_path: Path) -> None:
    names = shards(tmp_path)
    index(tmp_path, {f"layers.{k}.w.weight": file for k, file in enumerate(names)})
    (tmp_path / names[1]).write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"^model-00002-of-00002\.safetensors: this is a Git LFS pointer"):
        read(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"^model\.safetensors\.index\.json: this is a Git LFS pointer"):
        read(tmp_path)


def test_a_configuration_with_infinity_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model.safetensors")
    text = '\ufeff{"model_type": "llama", "time_step_limit": [0.0, Infinity], "low": -Infinity, "x": NaN}'
    (tmp_path / "config.json").write_text(text, "utf-8")
    for target in (tmp_path, tmp_path / "model.safetensors"):
        assert open_checkpoint(str(target)).catalogue.config["time_step_limit"] == [0.0, float("inf")]


def test_what_macos_and_downloads_leave_behind_is_passed_over(tmp_path: Path) -> None:
    save_file(A, tmp_path / "weights.safetensors")
    (tmp_path / "._weights.safetensors").write_bytes(b"\0\5\x16\7")
    hidden = tmp_path / ".cache" / "huggingface"
    hidden.mkdir(parents=True)
    save_file(A, hidden / "model.safetensors")
    catalogue = read(tmp_path)
    assert list(catalogue.tensors) == list(A)
    assert reasons(catalogue) == {
        "._weights.safetensors (file)": "what macOS notes of a file on foreign disks, not weights",
        ".cache/huggingface/model.safetensors (file)": "hidden, so not the checkpoint's own",
    }


def test_a_trainers_folder_is_read_beside_its_state(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model.safetensors")
    state = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "random_states_0.pkl")
    for name in (*state, "optimizer.safetensors"):
        (tmp_path / name).write_bytes(b"never opened")
    catalogue = read(tmp_path)
    assert list(catalogue.tensors) == list(A)
    assert reasons(catalogue) == {
        f"{name} (file)": "state of a training run, not weights; never opened"
        for name in (*state, "optimizer.safetensors")
    }


def test_an_index_and_shards_that_disagree_over_one_tensor(tmp_path: Path) -> None:
    """A tensor that the index does not name, or places in another shard, is read: libraries read whole shards."""
    save_file(A | B, tmp_path / "1.safetensors")
    save_file({"c.weight": np.ones((2, 2), np.float32)}, tmp_path / "2.safetensors")
    index(tmp_path, {**dict.fromkeys(A, "2.safetensors"), "c.weight": "1.safetensors", "x.inv_freq": "1.safetensors"})
    assert sorted(read(tmp_path).tensors) == sorted([*A, *B, "c.weight"])
    index(tmp_path, {**dict.fromkeys(A, "2.safetensors"), "gone.weight": "1.safetensors"})
    with pytest.raises(CheckpointError, match=r"gone\.weight: the index places this tensor here, and no shard has it"):
        read(tmp_path)


def test_one_tensor_of_many_that_no_shard_has_is_left_out_as_unmeasured(tmp_path: Path) -> None:
    tensors = {f"layers.{k}.w.weight": np.ones((2, 2), np.float32) for k in range(24)}
    save_file(tensors, tmp_path / "1.safetensors")
    index(tmp_path, dict.fromkeys([*tensors, "gone.weight"], "1.safetensors"))
    (item,) = read(tmp_path).skipped
    assert (item.tensor, item.reason, item.kind) == (
        "gone.weight", "the index names it, and no shard has it", "unmeasured",
    )  # fmt: skip


def test_the_head_that_an_index_names_and_a_tied_checkpoint_lacks_is_the_embedding(tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": np.ones((4, 2), np.float32)}, tmp_path / "1.safetensors")
    index(tmp_path, {"model.embed_tokens.weight": "1.safetensors", "lm_head.weight": "1.safetensors"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
    (matrix,) = open_checkpoint(str(tmp_path)).matrices
    assert matrix.aliases == ("unembedding",)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        open_checkpoint(str(tmp_path))


def test_a_broken_link_to_the_file_that_counts_is_never_passed_over(tmp_path: Path) -> None:
    save_file(A, tmp_path / "model.fp16.safetensors")
    (tmp_path / "model.safetensors").symlink_to("gone")
    with pytest.raises(UnsafeFileError, match=r"^model\.safetensors: the weights are a broken link"):
        read(tmp_path)


EMBEDDING = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("tied", [True, False, None])
@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_head_that_is_stored_and_equals_the_embedding_is_one_matrix(
    tmp_path: Path, tied: bool | None, equal: bool
) -> None:
    head = EMBEDDING.copy()
    head[3, 2] += 0 if equal else 1
    save_file({"model.embed_tokens.weight": EMBEDDING, "lm_head.weight": head}, tmp_path / "model.safetensors")
    config = {"model_type": "llama"} | ({} if tied is None else {"tie_word_embeddings": tied})
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(str(tmp_path))
    if tied and equal:
        (matrix,) = checkpoint.matrices
        assert (matrix.id, matrix.aliases) == ("embedding", ("unembedding",))
        assert "byte for byte" in checkpoint.skipped[0].reason
        assert checkpoint.skipped[0].kind == "buffer"
    else:
        assert {matrix.id for matrix in checkpoint.matrices} == {"embedding", "unembedding"}


def test_a_link_to_another_folder_that_alone_could_hold_the_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match=r"^weights: no weights but this, which is a link"):
        read(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["model.safetensors.incomplete", "model.safetensors.part", ".cache/huggingface/download/x.incomplete"]
)
def test_an_unfinished_download_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"half")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="an unfinished download") as caught:
        read(tmp_path)
    assert caught.value.file == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("value_head.safetensors", "unmeasured"),
        ("v_head.bin", "unmeasured"),
        ("mm_projector.bin", "unmeasured"),
        ("mtp.safetensors", "unmeasured"),
        ("2_Dense/model.safetensors", "unmeasured"),
        ("2_Dense/pytorch_model.bin", "unmeasured"),
        ("pytorch_model.bin", "file_not_read"),
        ("checkpoint-500/model.safetensors", "file_not_read"),
        ("consolidated.safetensors", "file_not_read"),
        ("model.fp16.safetensors", "file_not_read"),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_weights_beside_the_checkpoint_count_as_unmeasured_where_they_may_be_a_part_of_it(
    tmp_path: Path, name: str, kind: str, indexed: bool
) -> None:
    if indexed:
        names = shards(tmp_path)
        index(tmp_path, {f"layers.{k}.w.weight": file for k, file in enumerate(names)})
    else:
        save_file(A, tmp_path / "model.safetensors")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    save_file(B, tmp_path / name)
    (item,) = read(tmp_path).skipped
    assert (item.tensor, item.kind) == (f"{name} (file)", kind)


@pytest.mark.parametrize(
    ("layers", "config", "expected"),
    [
        ((0, 1, 3), {}, ["layers 2"]),
        ((0, 1), {}, ["layers 2, 3"]),
        ((0, 1, 2, 3), {}, []),
        ((0, 1, 2, 3, 4), {}, []),
        ((0, 1, 4), {}, []),
        ((0,), {}, []),
        ((0, 1), {"architectures": ["LlamaModel"]}, []),
        ((0, 1), {"num_hidden_layers": "4"}, []),
    ],
)
def test_layers_that_the_configuration_counts_and_nobody_saved_are_unmeasured(
    tmp_path: Path, layers: tuple[int, ...], config: dict[str, object], expected: list[str]
) -> None:
    save_file({f"model.layers.{k}.mlp.up_proj.weight": A["layers.0.a.weight"] for k in layers},
              tmp_path / "model.safetensors")  # fmt: skip
    whole = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4}
    (tmp_path / "config.json").write_text(json.dumps(whole | config))
    skipped = open_checkpoint(str(tmp_path)).skipped
    assert [item.tensor for item in skipped] == expected
    assert all(item.kind == "unmeasured" for item in skipped)


def experts(numbers: Iterable[int], *names: str, layer: int = 0) -> set[str]:
    module = f"model.layers.{layer}.mlp.experts"
    return {f"{module}.{k}.{name}_proj.weight" for k in numbers for name in names or ("up", "down")}


@pytest.mark.parametrize(
    ("names", "config", "expected"),
    [
        (experts(range(4)), {"num_experts": 4}, []),
        (experts(range(4)), {}, []),
        (experts(range(4), "up"), {"num_experts": 8}, ["4.up", "5.up", "6.up"]),
        (experts(range(4)), {"text_config": {"n_routed_experts": 5}}, ["4.down", "4.up"]),
        (experts((0, 1, 3)), {}, ["2.down", "2.up"]),
        (experts(range(4), "up") | experts((0, 1, 3), "down"), {}, ["2.down"]),
        (experts(range(6)), {"num_experts": 4}, []),
        (experts(range(4)), {"num_experts": [4, 8]}, []),
    ],
)
def test_experts_that_their_layer_should_have_and_nobody_saved_are_unmeasured(
    tmp_path: Path, names: set[str], config: dict[str, object], expected: list[str]
) -> None:
    save_file(dict.fromkeys(names, A["layers.0.a.weight"]), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"} | config))
    skipped = open_checkpoint(str(tmp_path)).skipped
    named = [name for item in skipped for name in item.tensor.removesuffix(", …").split(", ")]
    assert sorted(named) == [f"layers.0.experts.{name}" for name in expected]
    assert all(item.kind == "unmeasured" for item in skipped)
