"""Codes with factors and terms on a grid: the host and any device decode them to the bits of the definition."""

from __future__ import annotations

import array_api_compat.torch
import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrap.checkpoint.encodings.coded import bit_fields, integers, nibbles, pairs_of, quads_of, unpack
from llmtrap.packed import Packed, Tiles
from llmtrap.spectra.backends.decoding import ArrayApiDecoder

DECODERS = (ArrayApiDecoder(array_api_compat.torch, "cpu"), ArrayApiDecoder(array_api_strict))
TABLES = (integers(3), integers(signed=True), pairs_of(tuple(range(16))), quads_of((0.0, 1.5, -2.0, 3.0)))


@st.composite
def blocks(draw: st.DrawFn) -> Packed:
    table = draw(st.sampled_from(TABLES))
    rows, codes = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    columns = codes * table.shape[1]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    steps = []
    for operation in draw(st.lists(st.sampled_from(["multiply", "add"]), max_size=3)):
        height, width = draw(st.integers(1, 5)), draw(st.integers(1, columns + 1))
        above = draw(st.integers(0, height - 1))
        places = random.integers(0, 3, columns) if draw(st.booleans()) else None
        across = 3 if places is not None else -(-columns // width)
        shape = (-(-(rows + above) // height), across)
        if draw(st.booleans()):
            numbers, of_codes = random.integers(0, 256, shape, dtype=np.uint8), random.standard_normal(256)
            steps.append(Tiles(numbers, of_codes.astype(np.float32), height, width, above, places, operation))
        else:
            numbers = random.standard_normal(shape).astype(np.float32)
            steps.append(Tiles(numbers, None, height, width, above, places, operation))
    return Packed(random.integers(0, 256, (rows, codes), dtype=np.uint8), table, tuple(steps))


def by_definition(packed: Packed) -> np.ndarray:
    block = packed.table[packed.codes].reshape(packed.shape).copy()
    for tiles in packed.tiles:
        numbers = tiles.factors if tiles.table is None else tiles.table[tiles.factors]
        for i in range(block.shape[0]):
            for j in range(block.shape[1]):
                across = j // tiles.width if tiles.columns is None else tiles.columns[j]
                number = numbers[(i + tiles.above) // tiles.height, across]
                block[i, j] = block[i, j] * number if tiles.operation == "multiply" else block[i, j] + number
    return block


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(blocks())
def test_host_and_device_decode_to_the_bits_of_the_definition(packed: Packed) -> None:
    expected = by_definition(packed)
    out = np.empty(packed.shape, dtype=np.float32)
    unpack(packed, out)
    assert out.tobytes() == expected.tobytes()
    for decoder in DECODERS:
        assert decoder.to_host(decoder.decode(decoder.send(packed))).tobytes() == expected.tobytes()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dense", [True, False])
@given(data=st.data())
@settings(deadline=None, max_examples=20)
def test_bit_fields_are_what_was_packed(bits: int, dense: bool, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=50))
    if dense:
        stream = sum(code << (k * bits) for k, code in enumerate(codes))
        words = [stream >> (32 * k) & 0xFFFFFFFF for k in range(-(-len(codes) * bits // 32))]
    else:
        each = 32 // bits
        words = [
            sum(code << (k * bits) for k, code in enumerate(codes[first : first + each]))
            for first in range(0, len(codes), each)
        ]
    packed = np.array([words, words], dtype=np.uint32)
    found = bit_fields(packed, bits, len(codes), dense=dense)
    assert found.dtype == np.uint8
    assert found.tolist() == [codes, codes]


def test_nibbles_in_either_order() -> None:
    data = np.array([[0x21, 0x43]], dtype=np.uint8)
    assert nibbles(data).tolist() == [[1, 2, 3, 4]]
    assert nibbles(data, high_first=True).tolist() == [[2, 1, 4, 3]]
    values = tuple(float(k) for k in range(16))
    assert pairs_of(values)[0x21].tolist() == [1, 2]
    assert pairs_of(values, high_first=True)[0x21].tolist() == [2, 1]
    assert quads_of(values[:4])[0b11_10_01_00].tolist() == [0, 1, 2, 3]
