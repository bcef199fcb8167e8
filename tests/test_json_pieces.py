"""A large JSON object taken apart as it is read: the same parts as `json` finds, however it is written."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrap.json_pieces import CutShortError, PiecesError, TooLargeError, pieces

LISTS = frozenset({("matrices",), ("coverage", "skipped")})
# Brackets and quotes in strings, and more levels than are found in one go
TEXTS = st.text(st.sampled_from('ab"\\[]{},:\n\u00e9')) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


@given(st.lists(VALUES, max_size=4), VALUES, st.integers(1, 20), st.sampled_from([None, 1]), st.booleans())
def test_the_parts_are_those_that_json_finds(
    items: list[Any], other: Any, levels: int, indent: int | None, ascii_only: bool
) -> None:
    items.append(nested(levels))
    document = {"schema": "x", "coverage": {"planned": 1, "skipped": items}, "matrices": items, "summary": other}
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = [(where, is_item, piece) for where, is_item, piece in pieces(io.BytesIO(text), LISTS, 1 << 20)]
    assert [json.loads(piece) for where, is_item, piece in found if is_item and where == ("matrices",)] == items
    assert [json.loads(piece) for where, is_item, piece in found if is_item and where != ("matrices",)] == items
    assert [(where, json.loads(piece)) for where, is_item, piece in found if not is_item] == [
        (("schema",), "x"), (("coverage",), {}), (("coverage", "planned"), 1), (("coverage", "skipped"), []),
        (("matrices",), []), (("summary",), other),
    ]  # fmt: skip


def test_an_object_that_ends_early_is_told_at_every_byte() -> None:
    text = json.dumps({"matrices": [{"a": '}\\"'}, nested(12)], "b": 1}).encode()
    for end in range(len(text)):
        with pytest.raises(CutShortError):
            list(pieces(io.BytesIO(text[:end]), LISTS, 1 << 20))


def test_a_piece_over_the_limit_is_refused_however_it_is_nested() -> None:
    for item in (b"[" + b"[1]," * 3000 + b"1]", b"[" * 3000 + b"]" * 3000, b'"' + b"a" * 9000 + b'"'):
        with pytest.raises(TooLargeError):
            list(pieces(io.BytesIO(b'{"matrices": [' + item + b"]}"), LISTS, 4000))
    with pytest.raises(PiecesError):
        list(pieces(io.BytesIO(b"[]"), LISTS, 4000))
