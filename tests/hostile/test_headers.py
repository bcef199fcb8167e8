"""Headers that lie: about lengths, offsets, shapes, dtypes, names and their own structure."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from tests.support.raw_safetensors import header, sparse, write

from llmtrap.checkpoint import LocalSource, open_checkpoint, read_catalogue
from llmtrap.errors import CheckpointError, LlmtrapError, UnsafeFileError

Refused = Callable[..., LlmtrapError]
FILE = "model.safetensors"
GOOD = header({"a.weight": ("F32", (2, 3)), "b.weight": ("U8", (4,))})
SIZE = 28


def changed(**changes: Any) -> dict[str, Any]:
    fields = copy.deepcopy(GOOD)
    fields["a.weight"].update(changes)
    return fields


def test_the_good_file_is_good(tmp_path: Path) -> None:
    write(tmp_path / FILE, GOOD, SIZE)
    assert len(read_catalogue(LocalSource(tmp_path)).tensors) == 2


@pytest.mark.parametrize(
    ("fields", "tensor", "problem"),
    [
        (changed(data_offsets=[0, 25]), "a.weight", r"its shape \[2, 3\] of F32 takes 24 bytes, and its offsets 25"),
        (changed(data_offsets=[24, 0]), "a.weight", "takes 24 bytes, and its offsets -24"),
        (changed(data_offsets=[4, 28]), "a.weight", "leaves a hole before it"),
        (changed(data_offsets=[0, 20], shape=[5]), "b.weight", "leaves a hole before it"),
        (changed(data_offsets=[0, 28], shape=[7]), "b.weight", "overlaps the one before it"),
        (changed(data_offsets=[28, 52]), "b.weight", "leaves a hole before it"),
        (changed(data_offsets=[0]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets=[0, 24, 24]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets=[-24, 0]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets=[0.0, 24.0]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets=[False, 24]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets=[0, 1 << 70]), "a.weight", "data_offsets are not two positions"),
        (changed(data_offsets="0,24"), "a.weight", "data_offsets are not two positions"),
        (changed(shape=[2, -3]), "a.weight", "its shape is not a list"),
        (changed(shape=[True, 6]), "a.weight", "its shape is not a list"),
        (changed(shape=6), "a.weight", "its shape is not a list"),
        (changed(shape=[1] * 33), "a.weight", "its shape is not a list of at most 32"),
        (changed(shape=[1 << 32, 1 << 32]), "a.weight", "takes 73786976294838206464 bytes"),
        (changed(shape=[1 << 62] * 32), "a.weight", "takes .* bytes, and its offsets 24"),
        (changed(dtype="F33"), "a.weight", "its dtype F33 is not one"),
        (changed(dtype=None), "a.weight", "its dtype None is not one"),
        (changed(dtype=["F32"]), "a.weight", "its dtype"),
        (changed(dtype="\x1b[31mF32"), "a.weight", r"its dtype \\x1b\[31mF32 is not one"),
        (changed(extra=1), "a.weight", "is not dtype, shape and data_offsets"),
        ({**GOOD, "c": 5}, "c", "is not dtype, shape and data_offsets"),
        ({**GOOD, "\ud800": GOOD["a.weight"]}, "\\ud800", "not valid Unicode"),
        (
            {**GOOD, "c.weight": {**GOOD["b.weight"], "data_offsets": [28, 32]}},
            "c.weight",
            "end at byte .* the file has",
        ),
        (
            {"b.weight": {**GOOD["b.weight"], "data_offsets": [0, 4]}},
            None,
            "24 bytes after the last tensor belong to none",
        ),
        ({}, None, "28 bytes after the last tensor belong to none"),
    ],
)
def test_a_field_that_lies_is_named(
    tmp_path: Path, refused: Refused, fields: dict[str, Any], tensor: str | None, problem: str
) -> None:
    write(tmp_path / FILE, fields, SIZE)
    error = refused(CheckpointError)
    assert (error.file, error.tensor) == (FILE, tensor)
    import re  # noqa: PLC0415

    assert re.search(problem, error.problem), error.problem


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"a":1,"a":2}', "the key 'a' is given twice"),
        (b'{"a":{"dtype":"F32","dtype":"F16"}}', "the key 'dtype' is given twice"),
        (b"[1]", "the header is a JSON list, and should be an object"),
        (b"null", "the header is a JSON NoneType"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{}{}", "not valid JSON"),
        (b'{"a":NaN}', "NaN is no JSON number"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested over 64 deep"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"a":{},' * 1_000_001, "MiB to read, more than any checkpoint"),
        (b'{"a":[' + b"0," * 20_000_001, "MiB to read, more than any checkpoint"),
    ],
)
def test_a_header_that_is_no_plain_object_is_refused(
    tmp_path: Path, refused: Refused, raw: bytes, problem: str
) -> None:
    write(tmp_path / FILE, raw, 0)
    error = refused(CheckpointError)
    assert error.file == FILE
    assert problem in error.problem


@pytest.mark.parametrize(
    ("length", "problem"),
    [
        (100_000_001, "over the format's limit"),
        ((1 << 64) - 1, "over the format's limit"),
        (1_000_000, "and the file has"),
    ],
)
def test_a_header_length_that_lies_is_refused_before_anything_is_read(
    tmp_path: Path, refused: Refused, length: int, problem: str
) -> None:
    write(tmp_path / FILE, GOOD, SIZE, length=length)
    assert problem in refused(CheckpointError).problem


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_file_without_room_for_a_length_is_refused(tmp_path: Path, refused: Refused, size: int) -> None:
    (tmp_path / FILE).write_bytes(bytes(size))
    assert f"{size} bytes are too few" in refused(CheckpointError).problem


@pytest.mark.parametrize("missing", [1, 4, 27])
def test_a_truncated_file_names_the_first_tensor_that_is_cut(tmp_path: Path, refused: Refused, missing: int) -> None:
    write(tmp_path / FILE, GOOD, SIZE - missing)
    error = refused(CheckpointError)
    assert error.tensor == ("b.weight" if missing <= 4 else "a.weight")
    assert "fetch it again" in str(error.remedy)


def test_bytes_after_the_end_are_refused(tmp_path: Path, refused: Refused) -> None:
    write(tmp_path / FILE, GOOD, SIZE + 5)
    assert "5 bytes after the last tensor belong to none" in refused(CheckpointError).problem


def test_empty_tensors_of_absurd_shapes_take_nothing(tmp_path: Path) -> None:
    sparse(tmp_path / FILE, {f"t{k}": ("F32", (0, (1 << 62) + k, 1 << 60)) for k in range(10_000)})
    checkpoint = open_checkpoint(str(tmp_path))
    assert (len(checkpoint.matrices), len(checkpoint.skipped)) == (0, 10_000)
    assert {item.reason for item in checkpoint.skipped} == {"empty tensor"}


def test_names_full_of_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07\n\u202eevil\u0000.weight"
    sparse(tmp_path / FILE, {name: ("F32", (2, 2)), name + ".bias": ("F32", (2,)), "x" * 900: ("F32", (2, 2))})
    checkpoint = open_checkpoint(str(tmp_path))
    shown = [text for matrix in checkpoint.matrices for text in (matrix.id, matrix.role)]
    shown += [item.tensor for item in checkpoint.skipped]
    assert all(text.isprintable() and len(text) < 400 for text in shown)
    assert checkpoint.matrices[0].tensor == name
    np.testing.assert_array_equal(checkpoint.matrices[0].read(checkpoint.source), np.zeros((2, 2)))


def test_many_names_that_look_alike_get_an_id_each(tmp_path: Path) -> None:
    sparse(tmp_path / FILE, {"y" * 400 + f"{k:06d}": ("U8" if k % 2 else "BF16", (1, 1)) for k in range(20_000)})
    ids = [matrix.id for matrix in open_checkpoint(str(tmp_path)).matrices]
    assert len(set(ids)) == len(ids) == 10_000


class Planted:
    """What a hostile pickle does when it is loaded: it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_name_longer_than_any_real_one_is_refused(tmp_path: Path, refused: Refused) -> None:
    sparse(tmp_path / FILE, {"x" * 1001: ("F32", (2, 2))})
    assert "longer than the 1000 characters" in refused(CheckpointError).problem


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl"])
def test_a_pickle_is_never_loaded_whatever_it_is_called(
    tmp_path: Path, refused: Refused, name: str, protocol: int
) -> None:
    import pickle  # noqa: PLC0415

    planted = tmp_path / "planted"
    (tmp_path / name).write_bytes(pickle.dumps(Planted(planted), protocol))
    error = refused(UnsafeFileError)
    assert error.file == name
    assert "pickle" in error.problem
    assert not planted.exists()


def test_a_torch_archive_under_a_safetensors_name_is_refused(tmp_path: Path, refused: Refused) -> None:
    import torch  # noqa: PLC0415

    torch.save({"a": torch.ones(3)}, tmp_path / FILE)
    assert "pickle" in refused(UnsafeFileError).problem


def test_a_gguf_file_under_a_safetensors_name_is_named(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / FILE).write_bytes(b"GGUF\x03\0\0\0" + bytes(100))
    assert "GGUF" in refused(CheckpointError).problem


_DTYPES = st.sampled_from(["F32", "BF16", "U8", "I64", "F64", "nonsense"])
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": _DTYPES,
        "shape": st.lists(st.integers(-1, 5), max_size=3),
        "data_offsets": st.lists(st.integers(-2, 60), min_size=1, max_size=3),
    }
)


@given(fields=st.dictionaries(st.text(max_size=3), _ENTRY, max_size=3), size=st.integers(0, 80))
@settings(max_examples=2 * settings.default.max_examples, deadline=None)
def test_nothing_is_accepted_that_the_safetensors_library_refuses(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], size: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / FILE, fields, size)
    try:
        tensors = read_catalogue(LocalSource(folder)).tensors
    except CheckpointError:
        return
    try:
        with safe_open(folder / FILE, "numpy") as file:
            theirs = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        pytest.fail(f"accepted {json.dumps(fields)} of {size} bytes, which safetensors refuses: {error}")
    assert {name: list(entry.shape) for name, entry in tensors.items()} == theirs


@given(raw=st.binary(max_size=200))
@settings(max_examples=2 * settings.default.max_examples, deadline=None)
def test_random_bytes_give_an_error_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / FILE).write_bytes(raw)
    with pytest.raises(LlmtrapError):
        open_checkpoint(str(folder))
