"""The index and the configurations of a checkpoint and of an adapter, drawn at random: read, or refused in one line.

Hypothesis draws what nearly makes sense, since a random text is never more than no JSON; `fuzz_readers.py` does the
rest by coverage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.hostile.fuzz_checkpoints import (
    ADAPTER,
    ADAPTER_KEYS,
    CONFIG_KEYS,
    FACTORS,
    FUSED,
    FUSING,
    INDEX_NAME,
    NAMES,
    PACKED,
    PLAIN,
    SHARDS,
    WORDS,
    MemorySource,
    shard,
)

from llmtrap.checkpoint.adapters import read_adapter
from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.config import flag, integer, read_config, section, texts
from llmtrap.checkpoint.find import find_matrices
from llmtrap.errors import CheckpointError, LlmtrapError

some = settings(max_examples=3 * settings.default.max_examples, deadline=None)

LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.sampled_from([1 << 62, -1, 10**400])
    | st.sampled_from(WORDS) | st.text(max_size=6)
)  # fmt: skip


def objects(keys: list[str]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with keys that a reader looks for, and values of any kind three levels down."""
    values = st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(st.sampled_from(keys), values, max_size=6)


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Nothing, or one error of this project whose message a terminal can show."""
    message = ""
    try:
        yield
    except LlmtrapError as error:
        message = error.message
    assert message.isprintable()
    assert len(message) < 4000


# -- the index ------------------------------------------------------------------------------------------------------

SOUND = {"a.safetensors": shard(dict(PLAIN), 64), "b.safetensors": shard(PACKED, 1088)}
PLACES = {**dict.fromkeys(PLAIN, "a.safetensors"), **dict.fromkeys(PACKED, "b.safetensors")}


@some
@given(st.dictionaries(st.sampled_from([*PLAIN, *PACKED, *NAMES]) | st.text(max_size=8), st.sampled_from(SHARDS)))
@example(PLACES)
@example({**PLACES, "lm_head.weight": "a.safetensors"})
def test_an_index_is_believed_only_where_the_shards_have_what_it_names(places: dict[str, str]) -> None:
    source = MemorySource(SOUND | {INDEX_NAME: json.dumps({"weight_map": places}).encode()})
    accepted = False
    with refused_in_one_line():
        catalogue = read_catalogue(source)
        accepted = True
    if accepted:
        read = {name: entry.span.file for name, entry in catalogue.tensors.items()}
        assert read == {name: file for name, file in PLACES.items() if file in places.values()}
        assert set(places) <= set(read)
    if places == PLACES:
        assert accepted


@some
@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=9))
def test_what_is_no_index_is_refused(weight_map: object) -> None:
    source = MemorySource(SOUND | {INDEX_NAME: json.dumps({"weight_map": weight_map}).encode()})
    with pytest.raises(LlmtrapError) as caught:
        read_catalogue(source)
    assert caught.value.message.isprintable()


# -- config.json ----------------------------------------------------------------------------------------------------


@some
@given(objects(CONFIG_KEYS), st.sampled_from(FUSING))
def test_a_configuration_never_changes_what_there_is_to_measure(config: dict[str, object], kind: str) -> None:
    """However tensors are split and named, their entries are all there, once each."""
    text = json.dumps({"model_type": kind} | config).encode()
    source = MemorySource({"model.safetensors": shard(FUSED, 192), "config.json": text})
    with refused_in_one_line():
        catalogue = read_catalogue(source)
        for split in (False, True):
            found = find_matrices(catalogue, split_fused=split)
            sizes: dict[str, int] = {}
            for matrix in found.matrices:
                assert matrix.id.isprintable()
                sizes[matrix.tensor] = sizes.get(matrix.tensor, 0) + matrix.shape[0] * matrix.shape[1]
                assert matrix.read(source).shape == matrix.shape
            skipped = {item.tensor for item in found.skipped}
            stored = {name: entry.size for name, entry in catalogue.tensors.items() if not name.endswith("scale_inv")}
            assert sizes == {name: size for name, size in stored.items() if name not in skipped}


@some
@given(objects(CONFIG_KEYS), st.sampled_from([*CONFIG_KEYS, "ffn_config.moe_num_experts", "attn_config.kv_n_heads"]))
def test_what_is_asked_of_a_configuration_has_its_type_or_is_absent(config: dict[str, object], key: str) -> None:
    source = MemorySource({"config.json": json.dumps(config).encode()})
    read = None
    with refused_in_one_line():
        read = read_config(source)
    if read is not None:
        assert all(type(text) is str for text in texts(read, key))
        assert type(flag(read, key)) in (bool, type(None))
        number = integer(read, key)
        assert number is None or (type(number) is int and 0 < number < 1 << 40)
        assert type(section(read, key)) is dict


@some
@given(st.binary(max_size=60))
def test_random_bytes_are_no_configuration(raw: bytes) -> None:
    try:
        expected = json.loads(raw)
    except (ValueError, RecursionError):
        expected = None
    source = MemorySource({"config.json": raw})
    if isinstance(expected, dict):
        with refused_in_one_line():
            assert read_config(source) == expected
    else:
        with pytest.raises(CheckpointError):
            read_config(source)


# -- adapter_config.json --------------------------------------------------------------------------------------------


@some
@given(objects(ADAPTER_KEYS))
@example({"lora_alpha": 10**400})
@example({"alpha_pattern": {"a?" * 40 + "a" * 40: 1}})
@example({"alpha_pattern": {"q_proj{99999999999}": 1}})
def test_an_adapter_is_read_with_one_finite_scale_or_refused(changes: dict[str, object]) -> None:
    text = json.dumps(ADAPTER | changes).encode()
    source = MemorySource({"adapter_model.safetensors": shard(FACTORS, 64), "adapter_config.json": text})
    with refused_in_one_line():
        (pair,) = read_adapter(source).pairs
        assert pair.rank == 2
        assert type(pair.scale) is float
        assert abs(pair.scale) <= 1e30
