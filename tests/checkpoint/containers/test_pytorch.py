"""Files that torch.save writes, in both its forms, against torch.load; and what stands around a state dict."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import format_samples
from llmtrap.checkpoint import Checkpoint, LocalSource, open_checkpoint, read_catalogue
from llmtrap.checkpoint.encodings.chunked import ChunkedTensor
from llmtrap.errors import CheckpointError, TargetError, UnsupportedError

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
FLOATS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def save(value: Any, path: Path, zipped: bool = True, **options: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped, **options)
    return path


def values(checkpoint: Checkpoint, max_entries: int = 1 << 22) -> dict[str, np.ndarray[Any, Any]]:
    """Every matrix by its tensor's name, put together from blocks."""
    return {
        matrix.tensor: np.concatenate([block.copy() for block in matrix.blocks(checkpoint.source, max_entries)])
        for matrix in checkpoint.matrices
    }


def assert_equal(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    for max_entries in (1 << 22, 50):
        found = values(checkpoint, max_entries)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            wide = tensor.double() if tensor.dtype == torch.float64 else tensor.float()
            np.testing.assert_array_equal(found[name], wide.numpy(), err_msg=name, strict=True)


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_matrices_of_every_dtype_are_those_that_torch_loads(tmp_path: Path, zipped: bool, protocol: int) -> None:
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for k, dtype in enumerate(FLOATS if zipped else FLOATS[:4]):
        state[f"layers.{k}.weight"] = drawn(7, 5 + k, dtype=dtype, seed=k)
    state["bias"] = drawn(7)
    state["steps"] = torch.tensor(3)
    state["ids"] = torch.arange(12).reshape(3, 4)
    save(state, tmp_path / "pytorch_model.bin", zipped, pickle_protocol=protocol)
    checkpoint = open_checkpoint(str(tmp_path))
    assert_equal(checkpoint, {name: tensor for name, tensor in state.items() if name.startswith("layers")})
    assert {item.tensor: item.reason for item in checkpoint.skipped} == {
        "bias": "one-dimensional (a bias, a norm or another vector)",
        "steps": "integer buffer (I64)",
        "ids": "integer buffer (I64)",
    }


@FORMS
def test_views_are_read_as_the_tensors_they_are(tmp_path: Path, zipped: bool) -> None:
    base = drawn(12, 10, dtype=torch.bfloat16)
    state = {
        "transposed.weight": base.t(),
        "rows.weight": base[3:9],
        "columns.weight": base[:, 2:5],
        "every_other.weight": base[::2, ::3],
        "flipped_and_cut.weight": base.t()[1:8, ::4],
        "flat.weight": base.flatten()[5:65].reshape(6, 10),
        "one_row.weight": base[4:5],
        "one_column.weight": base[:, 4:5],
        "whole.weight": base,
    }
    path = save(state, tmp_path / "model.pt", zipped)
    assert_equal(open_checkpoint(str(path)), state)
    assert_equal(open_checkpoint(str(path)), torch.load(path))


def test_a_stack_of_experts_that_is_a_view_is_read_slice_by_slice(tmp_path: Path) -> None:
    stack = drawn(4, 6, 8, dtype=torch.float16)
    state = {"model.layers.0.mlp.experts.gate_up_proj": stack.transpose(1, 2), "model.layers.0.mlp.experts.x": stack}
    save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_moe"}')
    checkpoint = open_checkpoint(str(tmp_path))
    experts = [matrix for matrix in checkpoint.matrices if matrix.tensor.endswith("gate_up_proj")]
    assert len(experts) == 4
    for matrix in experts:
        assert matrix.index is not None
        expected = stack[matrix.index].t().float().numpy()
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected, strict=True)


def test_a_transposed_matrix_is_read_once_a_pass_and_gives_codes_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = drawn(40, 30, dtype=torch.bfloat16)
    save({"a.weight": base.t(), "b.weight": base[:, 5:25]}, tmp_path / "model.pt")
    checkpoint = open_checkpoint(str(tmp_path))
    transposed, cut = checkpoint.matrices
    assert isinstance(transposed.stored, ChunkedTensor)
    assert [span.size for span in transposed.spans(80)] == [base.numel() * 2]
    packed = list(transposed.packed_blocks(checkpoint.source, 80) or ())
    codes = np.concatenate([block.codes for block in packed])
    np.testing.assert_array_equal(codes, base.t().contiguous().view(torch.int16).numpy())
    counted = cut.histogram(checkpoint.source)
    assert counted is not None
    expected = np.unique(base[:, 5:25].double().numpy(), return_counts=True)
    np.testing.assert_array_equal(counted, expected)
    # Beyond the limit it is read column by column instead, to the same numbers.
    monkeypatch.setattr("llmtrap.checkpoint.encodings.chunked.HELD_BYTES", 100)
    assert len(transposed.spans(80)) == 40 * len(list(transposed.blocks(checkpoint.source, 80)))
    np.testing.assert_array_equal(values(checkpoint, 80)["a.weight"], base.t().float().numpy())


@FORMS
def test_an_expanded_tensor_is_left_out_and_said(tmp_path: Path, zipped: bool) -> None:
    state = {"a.weight": drawn(3, 4), "huge": torch.ones(1).expand(1 << 30, 1 << 20)}
    checkpoint = open_checkpoint(str(save(state, tmp_path / "model.pt", zipped)))
    assert_equal(checkpoint, {"a.weight": state["a.weight"]})
    assert [(item.tensor, item.reason.split(",")[0]) for item in checkpoint.skipped] == [
        ("huge", "a view whose elements share memory (expanded)")
    ]


def test_parameters_and_whole_modules_state_is_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 2)).half()
    save(dict(model.named_parameters()), tmp_path / "parameters.pt")
    save(model.state_dict(), tmp_path / "state.pt")
    matrices = {name: p.detach() for name, p in model.named_parameters() if p.dim() == 2}
    for name in ("parameters.pt", "state.pt"):
        assert_equal(open_checkpoint(str(tmp_path / name)), matrices)


def test_a_whole_model_and_other_kinds_of_tensors_are_refused_by_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(drawn(3, 3), 0.1, 0, torch.qint8)
        scripted = torch.jit.script(torch.nn.Linear(3, 3))
        for name in ("scripted.pt", "scripted.jit"):
            torch.jit.save(scripted, tmp_path / name)
    cases: dict[str, tuple[Any, str]] = {
        "model.pt": (torch.nn.Linear(3, 3), r"torch\.nn\.modules\.linear\.Linear: a whole model"),
        "quantised.pt": ({"w": quantised}, "tensors quantised by PyTorch"),
        "sparse.pt": ({"w": torch.eye(3).to_sparse()}, "sparse tensors"),
    }
    for name, (value, message) in cases.items():
        save(value, tmp_path / name)
        with pytest.raises(UnsupportedError, match=message):
            read_catalogue(LocalSource(tmp_path / name))
    for name in ("scripted.pt", "scripted.jit"):
        with pytest.raises(UnsupportedError, match=r"TorchScript: a program with its weights.*state_dict"):
            read_catalogue(LocalSource(tmp_path / name))


@FORMS
def test_a_trainers_file_gives_the_model_and_says_what_lies_beside_it(tmp_path: Path, zipped: bool) -> None:
    model = torch.nn.Linear(4, 6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    saved = {
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "ema_state_dict": {"weight": drawn(6, 4)},
        "epoch": 3,
        "hyper_parameters": argparse.Namespace(lr=1e-3, path=Path("data"), rate=np.float64(0.5)),
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(1.0)}},
        "rng": torch.get_rng_state(),
        "extra": {"probe": drawn(2, 2)},
    }
    path = save(saved, tmp_path / "last.ckpt", zipped)
    checkpoint = open_checkpoint(str(path))
    assert_equal(checkpoint, {"weight": model.weight.detach()})
    beside = {item.tensor: item.reason for item in checkpoint.skipped if "(in " in item.tensor}
    assert beside == {
        "optimizer_states (in last.ckpt)": "state of an optimizer: 6 tensors",
        "ema_state_dict (in last.ckpt)": "a moving average of the weights: 1 tensor",
        "callbacks (in last.ckpt)": "state of a training run: 1 tensor",
        "rng (in last.ckpt)": "state of a training run: 1 tensor",
        "extra (in last.ckpt)": "not part of the state dict 'state_dict': 1 tensor",
    }


def test_several_models_in_one_file_are_all_read(tmp_path: Path) -> None:
    saved = {
        "encoder": {"0": {"weight": drawn(3, 4)}},
        "decoder": {"weight": drawn(4, 3)},
        "optim": {"state": {0: {"exp_avg": drawn(3, 4)}}},
    }
    checkpoint = open_checkpoint(str(save(saved, tmp_path / "gan.pth")))
    assert values(checkpoint).keys() == {"encoder.0.weight", "decoder.weight"}
    assert [item.tensor for item in checkpoint.skipped] == ["optim (in gan.pth)"]


def test_a_model_wrapped_twice_and_a_lone_tensor(tmp_path: Path) -> None:
    twice = save({"model": {"state_dict": {"a.weight": drawn(2, 3)}, "args": {"lr": 1.0}}}, tmp_path / "twice.pt")
    assert values(open_checkpoint(str(twice))).keys() == {"a.weight"}
    lone = save(drawn(2, 3), tmp_path / "lone.pt")
    assert values(open_checkpoint(str(lone))).keys() == {"tensor"}
    with pytest.raises(TargetError, match="holds no tensors"):
        read_catalogue(LocalSource(save({"epoch": 3}, tmp_path / "none.pt")))


def test_shards_with_an_index_are_one_checkpoint(tmp_path: Path) -> None:
    shards = {
        "pytorch_model-00001-of-00002.bin": {"model.layers.0.mlp.up_proj.weight": drawn(6, 4)},
        "pytorch_model-00002-of-00002.bin": {"model.layers.1.mlp.up_proj.weight": drawn(6, 4, seed=1).t().t()},
    }
    for name, state in shards.items():
        save(state, tmp_path / name)
    places = {tensor: name for name, state in shards.items() for tensor in state}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    save({"x": drawn(2, 2)}, tmp_path / "training_args.bin")
    checkpoint = open_checkpoint(str(tmp_path))
    assert_equal(checkpoint, {name: tensor for state in shards.values() for name, tensor in state.items()})
    assert [matrix.id for matrix in checkpoint.matrices] == ["layers.0.mlp.up", "layers.1.mlp.up"]
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin: .*missing"):
        open_checkpoint(str(tmp_path))


def test_weights_stored_once_under_two_names_are_one_matrix_with_an_alias(tmp_path: Path) -> None:
    embedding = drawn(10, 4)
    state = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    save(state, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(str(tmp_path))
    assert [(matrix.id, matrix.aliases) for matrix in checkpoint.matrices] == [("embedding", ("unembedding",))]
    assert [(item.tensor, item.reason) for item in checkpoint.skipped] == [
        ("lm_head.weight", "the same weights as model.embed_tokens.weight, stored once")
    ]


@pytest.mark.parametrize("columns", [True, False], ids=["llama-2", "llama-3"])
def test_model_parallel_slices_are_joined_along_the_axis_that_was_cut(tmp_path: Path, columns: bool) -> None:
    dim, hidden, vocabulary = 8, 12, 10
    rows_cut = {
        **{f"layers.0.attention.w{part}.weight": (dim, dim) for part in "qkv"},
        **{f"layers.0.feed_forward.w{k}.weight": (hidden, dim) for k in (1, 3)},
        "output.weight": (vocabulary, dim),
    }
    columns_cut = {"layers.0.attention.wo.weight": (dim, dim), "layers.0.feed_forward.w2.weight": (dim, hidden)}
    (columns_cut if columns else rows_cut)["tok_embeddings.weight"] = (vocabulary, dim)
    whole = {
        name: drawn(*shape, dtype=torch.bfloat16, seed=k)
        for k, (name, shape) in enumerate((rows_cut | columns_cut).items())
    }
    for k in range(2):
        part = {name: whole[name].chunk(2, 0)[k].clone() for name in rows_cut}
        part |= {name: whole[name].chunk(2, 1)[k].clone() for name in columns_cut}
        part["norm.weight"] = torch.ones(dim)
        save(part, tmp_path / f"consolidated.0{k}.pth")
    (tmp_path / "params.json").write_text(json.dumps({"dim": dim}))
    checkpoint = open_checkpoint(str(tmp_path))
    assert_equal(checkpoint, whole)
    (tmp_path / "consolidated.00.pth").unlink()
    save({"norm.weight": torch.ones(dim)}, tmp_path / "consolidated.02.pth")
    with pytest.raises(CheckpointError, match="slice 0 of a model-parallel checkpoint is missing"):
        open_checkpoint(str(tmp_path))


def test_a_slice_of_unknown_cut_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    for k in range(2):
        save({"norm.weight": torch.ones(4), "adapter.weight": drawn(2, 4)}, tmp_path / f"consolidated.0{k}.pth")
    with pytest.raises(UnsupportedError, match=r"adapter\.weight: no rule says how this matrix was cut"):
        open_checkpoint(str(tmp_path))


def test_torch_is_not_imported_for_it(tmp_path: Path) -> None:
    path = save({"a.weight": drawn(30, 20).t()}, tmp_path / "model.pt")
    program = (
        "import sys; from llmtrap.checkpoint import open_checkpoint; c = open_checkpoint(sys.argv[1]);"
        "c.matrices[0].read(c.source); assert not {'torch', 'pickle5', 'gguf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.parametrize("held", [True, False])
def test_kernels_that_keep_their_channels_last_are_the_matrices_of_those_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    if not held:
        monkeypatch.setattr("llmtrap.checkpoint.encodings.chunked.HELD_BYTES", 100)
    image, volume = drawn(24, 20, 3, 5), drawn(20, 18, 3, 3, 3, dtype=torch.bfloat16, seed=1)
    state = {
        "conv1.weight": image.contiguous(memory_format=torch.channels_last),
        "conv2.weight": volume.contiguous(memory_format=torch.channels_last_3d),
        "conv3.weight": image[:, 2:18],
        "conv4.weight": image.transpose(0, 1),
        "conv5.weight": image,
    }
    checkpoint = open_checkpoint(str(save(state, tmp_path / "model.pt")))
    expected = {name: tensor.flatten(1) for name, tensor in state.items()}
    left_out = {item.tensor for item in checkpoint.skipped}
    # Rows among one another are only read where the whole fits into memory; else that they are not is said.
    assert left_out == (set() if held else {"conv4.weight"})
    assert_equal(checkpoint, {name: tensor for name, tensor in expected.items() if name not in left_out})
    counted = {m.tensor: m.histogram(checkpoint.source) for m in checkpoint.matrices}["conv2.weight"]
    assert counted is not None
    np.testing.assert_array_equal(counted, np.unique(volume.double().numpy(), return_counts=True))


def test_one_slice_of_a_model_given_alone_is_not_taken_for_the_model(tmp_path: Path) -> None:
    state = {"norm.weight": torch.ones(8), "layers.0.attention.wq.weight": drawn(4, 8)}
    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        path = save(state | {"layers.0.attention.wq.weight": drawn(8 if "01" in name else 4, 8)}, tmp_path / name)
        with pytest.raises(CheckpointError, match=r"one slice of a model-parallel checkpoint.*Give the folder"):
            open_checkpoint(str(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_quantised_weights_are_read_from_this_container_as_from_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setattr(format_samples, "SIDE", 256)
    wanted = {"GPTQ", "bitsandbytes", "compressed-tensors INT"}
    for number, sample in enumerate(format_samples.samples()):
        if sample.encoding in wanted and isinstance(sample, format_samples.Sample):
            folder = tmp_path / str(number)
            folder.mkdir()
            sample.write(folder)
            found = []
            for _ in range(2):
                checkpoint = open_checkpoint(str(folder))
                (matrix,) = checkpoint.matrices
                found.append((matrix.encoding, matrix.read(checkpoint.source).tobytes()))
                (folder / "model.safetensors").unlink(missing_ok=True)
                save(sample.tensors, folder / "pytorch_model.bin", zipped)
            assert found[0] == found[1], sample.label


def test_an_index_may_name_both_names_of_weights_that_are_stored_once(tmp_path: Path) -> None:
    embedding = drawn(10, 4)
    shards = {
        "pytorch_model-00001-of-00002.bin": {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding},
        "pytorch_model-00002-of-00002.bin": {"model.layers.0.mlp.up_proj.weight": drawn(6, 4)},
    }
    for name, state in shards.items():
        save(state, tmp_path / name)
    places = {tensor: name for name, state in shards.items() for tensor in state}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    checkpoint = open_checkpoint(str(tmp_path))
    assert [(m.id, m.aliases) for m in checkpoint.matrices] == [
        ("embedding", ("unembedding",)),
        ("layers.0.mlp.up", ()),
    ]
