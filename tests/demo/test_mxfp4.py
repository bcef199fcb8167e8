"""The MXFP4 writer: exact on what MXFP4 can hold, nearest on the rest, read alike by transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrap.demo import mxfp4

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)


def test_a_block_byte_by_byte() -> None:
    # Given 32 values whose largest is 6, so that the scale is 2^0 and every value below stands for itself
    values = np.zeros((1, 32), dtype=np.float32)
    values[0, :6] = [6, -0.5, 1.5, 4, -3, 1]

    blocks, scales = mxfp4.quantise(values)

    # Then the even column is the low nibble, and the sign is bit 3 of a nibble
    assert scales.tolist() == [[127]]
    assert blocks[0, 0, :4].tolist() == [0x97, 0x63, 0x2D, 0x00]


def test_ties_go_to_even_and_overflow_saturates() -> None:
    values = np.zeros((1, 32), dtype=np.float32)
    values[0, :9] = [7.5, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -7.9]

    decoded = mxfp4.dequantise(*mxfp4.quantise(values))

    assert decoded[0, :9].tolist() == [6, 0, 1, 1, 2, 2, 4, 4, -6]


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=32, max_size=32), st.integers(-100, 100), st.data())
def test_what_mxfp4_can_hold_survives(signs: list[float], exponent: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 7), min_size=31, max_size=31))
    values = np.ldexp(E2M1[[7, *codes]] * np.array(signs, dtype=np.float32), exponent)[None]

    assert np.array_equal(mxfp4.dequantise(*mxfp4.quantise(values)), values)


@given(st.integers(0, 2**32 - 1), st.floats(-30, 30))
def test_every_value_goes_to_its_nearest_neighbour(seed: int, log_scale: float) -> None:
    values = (2.0**log_scale * np.random.default_rng(seed).standard_normal((3, 64))).astype(np.float32)

    blocks, scales = mxfp4.quantise(values)
    decoded = mxfp4.dequantise(blocks, scales)

    unit = np.repeat(np.ldexp(1.0, scales.astype(int) - 127), 32, axis=-1)
    grid = np.concatenate([-E2M1[::-1], E2M1]).astype(np.float64)
    best = np.abs(values[..., None] / unit[..., None] - grid).min(axis=-1)
    assert np.allclose(np.abs(values - decoded) / unit, best, rtol=0, atol=1e-6)


def test_zeros_and_extremes() -> None:
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    values = np.zeros((3, 32), dtype=np.float32)
    values[1, 0], values[2, 0] = tiny, huge

    decoded = mxfp4.dequantise(*mxfp4.quantise(values))

    assert not decoded[0].any()
    assert decoded[1, 0] == 0  # below the least scale times the least step
    assert decoded[2, 0] == 6 * 2.0**125


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused(bad: float) -> None:
    values = np.ones((2, 32), dtype=np.float32)
    values[1, 3] = bad
    with pytest.raises(ValueError, match="no infinity and no NaN"):
        mxfp4.quantise(values)


def test_ragged_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="33 columns are not a multiple of 32"):
        mxfp4.quantise(np.zeros((1, 33), dtype=np.float32))


def test_transformers_reads_the_same_numbers() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'calibrate'")
    oracle = pytest.importorskip("transformers.integrations.mxfp4", reason="needs the extra 'calibrate'")
    values = np.random.default_rng(1).standard_normal((2, 6, 96), dtype=np.float32)

    blocks, scales = mxfp4.quantise(values)
    theirs = oracle.convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32)

    assert np.array_equal(theirs.numpy().transpose(0, 2, 1), mxfp4.dequantise(blocks, scales))
