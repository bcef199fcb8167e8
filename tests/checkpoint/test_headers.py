"""Whatever the safetensors library writes is read back the same: names, dtypes, shapes and the place of every byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import save_file

from llmtrap.checkpoint import LocalSource, read_catalogue
from llmtrap.checkpoint.names import encodable, natural_key, printable

DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and encodable(name))


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, tuple[str, np.ndarray]]:
    found = {}
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        dtype = draw(st.sampled_from(list(DTYPES)))
        shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        found[name] = (dtype, draw(arrays(DTYPES[dtype], shape)))
    return found


@given(stored=tensors(), metadata=st.none() | st.dictionaries(NAMES, NAMES, min_size=1, max_size=2))
@settings(max_examples=100, deadline=None)
def test_what_the_library_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    stored: dict[str, tuple[str, np.ndarray]],
    metadata: dict[str, str] | None,
) -> None:
    folder = tmp_path_factory.mktemp("written")
    save_file({name: values for name, (_, values) in stored.items()}, folder / "model.safetensors", metadata)
    source = LocalSource(folder)
    catalogue = read_catalogue(source)
    assert {name: (entry.dtype, entry.shape) for name, entry in catalogue.tensors.items()} == {
        name: (dtype, values.shape) for name, (dtype, values) in stored.items()
    }
    for name, (_, values) in stored.items():
        assert source.read(catalogue.tensors[name].span).tobytes() == values.tobytes()


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    many = {f"layers.{k}.a.rather.long.name.to.fill.the.header": np.full((1, 2), k, np.float32) for k in range(3000)}
    save_file(many, tmp_path / "model.safetensors")
    source = LocalSource(tmp_path)
    catalogue = read_catalogue(source)
    assert catalogue.tensors.keys() == many.keys()
    for name in list(many)[::500]:
        assert source.read(catalogue.tensors[name].span).view("<f4").tolist() == many[name].ravel().tolist()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model.layers.0", "model.layers.0"),
        ("größe.层", "größe.层"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("left\u202eright", "left\\u202eright"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_a_name_is_shown_without_anything_a_terminal_would_obey(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(max_size=2000))
def test_any_name_is_shown_printable_and_short(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown) < 10 * 300 + 50


def test_names_are_sorted_as_a_reader_counts() -> None:
    names = ["layers.10.b", "layers.2.b", "layers.2.a", "10", "9", "x" * 3, "layers.00002.a", "9" * 6000]
    expected = ["9", "10", "9" * 6000, "layers.00002.a", "layers.2.a", "layers.2.b", "layers.10.b", "xxx"]
    assert sorted(names, key=natural_key) == expected
    names.reverse()
    assert sorted(names, key=natural_key) == expected
    assert sorted(["a.2b", "a.2", "a", "a.2.1"], key=natural_key) == ["a", "a.2", "a.2.1", "a.2b"]
