"""GGUF files against the `gguf` package: every block type over any bytes, real quantisers, split files, names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmtrap.checkpoint import Checkpoint, LocalSource, open_checkpoint, read_catalogue
from llmtrap.checkpoint.containers.gguf.types import BLOCK_TYPES
from llmtrap.checkpoint.encodings import claim_all
from llmtrap.checkpoint.encodings.gguf_blocks import BY_LIBRARY, LAYOUTS
from llmtrap.errors import CheckpointError, MissingExtraError, UnsupportedError
from llmtrap.spectra.backends.decoding import ArrayApiDecoder

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
Tensors = dict[str, tuple[str, NDArray[np.uint8]]]


def write(path: Path, tensors: Tensors, keys: dict[str, Any] | None = None, **options: Any) -> Path:
    """Encoded rows [..., bytes] under their names, by the library's own writer."""
    writer = gguf.GGUFWriter(path, "llama", **options)
    for key, value in (keys or {}).items():
        writer.add_uint32(key, value)
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_rows(kind: str, rows: tuple[int, ...], columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of any bytes, but for scales that have no value: those the library and this project read differently."""
    block = BLOCK_TYPES[kind]
    data = np.random.default_rng(seed).integers(0, 256, (*rows, columns // block.entries, block.size), dtype=np.uint8)
    if kind == "MXFP4":
        data[..., 0] = np.minimum(data[..., 0], 254)
    return data.reshape(*rows, -1)


def decoded(kind: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        values: NDArray[np.float32] = quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    return values


def read(checkpoint: Checkpoint, max_entries: int = 1 << 22) -> dict[str, NDArray[np.floating]]:
    return {
        matrix.tensor if matrix.index is None else f"{matrix.tensor}[{matrix.index}]": np.concatenate(
            [block.copy() for block in matrix.blocks(checkpoint.source, max_entries)]
        )
        for matrix in checkpoint.matrices
    }


@pytest.mark.parametrize("kind", [*(name for name in LAYOUTS if name != "Q8_K"), *BY_LIBRARY])
def test_any_bytes_decode_as_the_library_decodes_them(tmp_path: Path, kind: str) -> None:
    data = random_rows(kind, (24,), 768)
    write(tmp_path / "model.gguf", {"a.weight": (kind, data)})
    checkpoint = open_checkpoint(str(tmp_path))
    (matrix,) = checkpoint.matrices
    assert (matrix.shape, matrix.encoding) == ((24, 768), kind)
    for max_entries in (1 << 22, 5000):
        (found,) = read(checkpoint, max_entries).values()
        np.testing.assert_array_equal(found, decoded(kind, data), strict=True)


@pytest.mark.parametrize("kind", QUANTISED)
def test_what_the_library_quantised_decodes_as_it_does(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(1).standard_normal((8, 192)).astype(np.float32)
    data = quants.quantize(values, gguf.GGMLQuantizationType[kind])
    checkpoint = open_checkpoint(str(write(tmp_path / "model.gguf", {"a.weight": (kind, data)})))
    (found,) = read(checkpoint).values()
    np.testing.assert_array_equal(found, decoded(kind, data), strict=True)
    assert np.abs(found - values).max() < 1


def test_q8_k_is_a_float_and_bytes(tmp_path: Path) -> None:
    """A type of ggml's own arithmetic, which the library does not decode: d · q."""
    rng = np.random.default_rng(2)
    d = rng.standard_normal((6, 2, 1)).astype(np.float32)
    q = rng.integers(-128, 128, (6, 2, 256)).astype(np.int8)
    blocks = np.concatenate([d.view(np.uint8), q.view(np.uint8), np.zeros((6, 2, 32), np.uint8)], axis=2)
    checkpoint = open_checkpoint(str(write(tmp_path / "m.gguf", {"a.weight": ("Q8_K", blocks.reshape(6, -1))})))
    (found,) = read(checkpoint).values()
    np.testing.assert_array_equal(found, (d * q).reshape(6, 512), strict=True)


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_a_device_is_sent_codes_and_decodes_the_same_bits(tmp_path: Path, kind: str) -> None:
    xp = pytest.importorskip("array_api_compat.numpy")
    data = random_rows(kind, (8,), 512, seed=3)
    if kind in ("Q8_K",):
        data.reshape(8, 2, -1)[..., :4] = np.array([0.25], np.float32).view(np.uint8)
    checkpoint = open_checkpoint(str(write(tmp_path / "model.gguf", {"a.weight": (kind, data)})))
    (matrix,) = checkpoint.matrices
    decoder = ArrayApiDecoder(xp)
    blocks = [
        decoder.to_host(decoder.decode(decoder.send(block))) for block in matrix.packed_blocks(checkpoint.source) or ()
    ]
    (found,) = read(checkpoint).values()
    np.testing.assert_array_equal(np.concatenate(blocks), found, strict=True)


def test_plain_numbers_and_stacks_and_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((6, 32)).astype(np.float32)
    half = values.astype(np.float16)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    stack = random_rows("Q4_K", (3, 4), 256)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("f32.weight", values)
    writer.add_tensor("f16.weight", half)
    writer.add_tensor("bf16.weight", upper.view(np.uint8).reshape(6, -1), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("blk.0.ffn_up_exps.weight", stack, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.add_tensor("blk.0.attn_norm.weight", values[0])
    writer.add_tensor("rope.ids", np.arange(6, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(str(tmp_path))
    expected = {
        "f32.weight": values,
        "f16.weight": half.astype(np.float32),
        "bf16.weight": (upper.astype(np.uint32) << 16).view(np.float32),
    }
    found = read(checkpoint)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(found[name], wanted, strict=True)
    assert {"blk.0.attn_norm.weight", "rope.ids"} <= {item.tensor for item in checkpoint.skipped}
    experts = {stored.name: stored for stored in claim_all(checkpoint.catalogue)[0]}["blk.0.ffn_up_exps.weight"]
    for k in range(3):
        np.testing.assert_array_equal(experts.decode(checkpoint.source, k, 1, 4), decoded("Q4_K", stack[k])[1:4])


@pytest.mark.parametrize("small_first", [True, False])
def test_a_split_model_is_one_checkpoint_and_a_missing_part_is_named(tmp_path: Path, small_first: bool) -> None:
    tensors: Tensors = {f"blk.{k}.ffn_up.weight": ("Q8_0", random_rows("Q8_0", (4,), 64, seed=k)) for k in range(4)}
    options = {"split_max_tensors": 2, "small_first_shard": small_first}
    write(tmp_path / "model.gguf", tensors, {"llama.block_count": 4}, **options)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == (3 if small_first else 2)
    catalogue = read_catalogue(LocalSource(tmp_path))
    assert (catalogue.config["model_type"], catalogue.config["num_hidden_layers"]) == ("llama", 4)
    found = read(open_checkpoint(str(tmp_path)))
    for name, (kind, data) in tensors.items():
        np.testing.assert_array_equal(found[name], decoded(kind, data), strict=True)
    with pytest.raises(CheckpointError, match=rf"split into {len(parts)} GGUF files, and 1 are here.*folder"):
        open_checkpoint(str(parts[-1]))
    parts[-1].unlink()
    with pytest.raises(CheckpointError, match=r"model-0000\d-of-0000\d\.gguf: .*missing"):
        open_checkpoint(str(tmp_path))


def test_two_models_in_a_folder_are_not_mixed_and_a_projector_is_left_aside(tmp_path: Path) -> None:
    data = random_rows("Q8_0", (4,), 64)
    write(tmp_path / "model-Q8_0.gguf", {"blk.0.ffn_up.weight": ("Q8_0", data)})
    write(tmp_path / "mmproj-model.gguf", {"v.blk.0.ffn_up.weight": ("Q8_0", data)})
    write(tmp_path / "model.imatrix.gguf", {"blk.0.ffn_up.weight.in_sum2": ("Q8_0", data)})
    checkpoint = open_checkpoint(str(tmp_path))
    assert [file.name for file in checkpoint.catalogue.files] == ["model-Q8_0.gguf"]
    assert "a model of its own" in {item.tensor: item.reason for item in checkpoint.skipped}["mmproj-model.gguf (file)"]
    write(tmp_path / "model-Q4_0.gguf", {"blk.0.ffn_up.weight": ("Q4_0", random_rows("Q4_0", (4,), 64))})
    with pytest.raises(CheckpointError, match=r"is in model-Q4_0\.gguf too.*Give the one file"):
        open_checkpoint(str(tmp_path))


def test_a_file_without_a_suffix_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    """As Ollama keeps its models: sha256-… without a suffix."""
    path = write(tmp_path / "model.gguf", {"blk.0.ffn_up.weight": ("Q8_0", random_rows("Q8_0", (4,), 64))})
    blob = path.rename(tmp_path / "sha256-0123456789abcdef")
    assert [matrix.encoding for matrix in open_checkpoint(str(blob)).matrices] == ["Q8_0"]


def test_a_missing_extra_is_named_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf", {"a.weight": ("IQ2_XS", random_rows("IQ2_XS", (4,), 256))})
    monkeypatch.setattr("llmtrap.checkpoint.encodings.gguf.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"GGUF's IQ2_XS needs the extra 'gguf'.*pip install 'llmtrap\[gguf\]'"):
        open_checkpoint(str(tmp_path))


def test_the_package_is_not_imported_for_the_common_types(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", {"a.weight": ("Q4_K", random_rows("Q4_K", (4,), 256))})
    program = (
        "import sys; from llmtrap.checkpoint import open_checkpoint; c = open_checkpoint(sys.argv[1]);"
        "c.matrices[0].read(c.source); assert not {'torch', 'gguf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.parametrize(("architecture", "said"), [("llama", True), ("qwen2", False)])
def test_rows_that_llama_cpp_reordered_are_said(tmp_path: Path, architecture: str, said: bool) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", architecture)
    for part in ("q", "k", "v"):
        writer.add_tensor(f"blk.0.attn_{part}.weight", np.ones((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    texts = [(item.kind, item.text[:54]) for item in open_checkpoint(str(tmp_path)).cautions]
    assert texts == ([("rows_reordered", "llama.cpp reordered the rows of q and k (2 matrices): ")] if said else [])


@pytest.mark.parametrize(
    ("architecture", "kind", "words"),
    [
        ("llama", gguf.GGUFType.ADAPTER, r"an adapter \(LoRA\).*llama-export-lora"),
        ("llama", gguf.GGUFType.IMATRIX, "statistics of activations"),
        ("controlvector", None, "a control vector"),
    ],
)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, architecture: str, kind: str | None, words: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", architecture)
    if kind is not None:
        writer.add_type(kind)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match=words):
        open_checkpoint(str(tmp_path))
