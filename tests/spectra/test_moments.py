"""Moments of the entries against float64 arithmetic, where single precision and raw sums would go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmtrap.spectra.moments import (
    PIECE,
    MomentPass,
    Moments,
    NonFiniteError,
    OutOfRangeError,
    moments_of_blocks,
    moments_of_histogram,
    power_of_two_scale,
)

Floats = NDArray[np.floating]


def in_one_pass(matrix: Floats, rows: int = 37) -> Moments:
    """What the package finds, given the matrix by blocks."""
    blocks = [matrix[k : k + rows] for k in range(0, len(matrix), rows)]
    sums = MomentPass()
    for block in blocks:
        sums.add(block)
    return sums.finish(blocks)


def by_hand(matrix: Floats) -> Moments:
    """The same in extended precision, straight from the definitions."""
    x = matrix.astype(np.longdouble).reshape(-1)
    mean = x.mean()
    variance = ((x - mean) ** 2).mean()
    kurtosis = ((x - mean) ** 4).mean() / variance**2
    return Moments(x.size, float(mean), float(variance), float(kurtosis), float(x.min()), float(x.max()))


def assert_close(found: Moments, expected: Moments, relative: float = 2e-5) -> None:
    assert found.count == expected.count
    assert (found.minimum, found.maximum) == (expected.minimum, expected.maximum)
    deviation = expected.variance**0.5
    assert found.mean == pytest.approx(expected.mean, abs=1e-5 * deviation)
    assert found.variance == pytest.approx(expected.variance, rel=relative)
    assert found.kurtosis == pytest.approx(expected.kurtosis, rel=relative)


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, -8, 0, 8, 20, 30, 37])
def test_any_scale_of_float32(rng: np.random.Generator, exponent: int) -> None:
    matrix = (rng.standard_t(5, (300, 200)) * 10.0**exponent).astype(np.float32)
    assert_close(in_one_pass(matrix), by_hand(matrix))


@pytest.mark.parametrize("exponent", [-139, -100, 100, 138])
def test_any_scale_of_float64(rng: np.random.Generator, exponent: int) -> None:
    matrix = rng.standard_t(5, (100, 80)) * 10.0**exponent
    # Powers above the second leave even extended precision's comfort: compare with the unscaled matrix.
    plain, found = by_hand(matrix / 10.0**exponent), in_one_pass(matrix)
    assert found.variance / 10.0**exponent / 10.0**exponent == pytest.approx(plain.variance, rel=1e-9)
    assert found.kurtosis == pytest.approx(plain.kurtosis, rel=1e-9)


@pytest.mark.parametrize(("mean", "kind"), [(3, "f4"), (1e3, "f4"), (1e4, "f4"), (-1e6, "f8"), (1e9, "f8")])
def test_a_mean_far_greater_than_the_deviation(rng: np.random.Generator, mean: float, kind: str) -> None:
    matrix = (rng.standard_normal((300, 200)) + mean).astype(kind)
    assert_close(in_one_pass(matrix), by_hand(matrix))


def test_a_large_mean_at_a_small_scale(rng: np.random.Generator) -> None:
    matrix = ((rng.standard_normal((300, 200)) + 500) * 1e-25).astype(np.float32)
    assert_close(in_one_pass(matrix), by_hand(matrix))


def test_one_huge_entry_among_small_ones(rng: np.random.Generator) -> None:
    matrix = (rng.standard_normal((300, 200)) * 0.02).astype(np.float32)
    matrix[17, 5] = 3e38
    found = in_one_pass(matrix)
    assert found.kurtosis == pytest.approx(60_000, rel=1e-3)
    assert found.variance == pytest.approx(3e38**2 / 60_000, rel=1e-3)


def test_a_constant_has_no_spread() -> None:
    matrix = np.full((400, 300), 0.1, dtype=np.float32)
    value = float(np.float32(0.1))
    assert in_one_pass(matrix) == Moments(120_000, value, 0.0, 0.0, value, value)


def test_nothing_at_all() -> None:
    assert MomentPass().finish([]) == Moments(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_told_at_once(rng: np.random.Generator, bad: float) -> None:
    matrix = rng.standard_normal((300, 300)).astype(np.float32)
    matrix[299, 299] = bad
    with pytest.raises(NonFiniteError):
        in_one_pass(matrix)
    with pytest.raises(NonFiniteError):
        moments_of_histogram(np.array([0.0, bad]), np.array([5, 1]))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["<f4", "<f8"]),
    st.floats(-3, 3),
    st.lists(st.floats(0.1, 10), min_size=5, max_size=5),
)
def test_extremes_are_exact_whatever_the_order_of_the_pieces(
    seed: int, kind: str, mean: float, sizes: list[float]
) -> None:
    rng = np.random.default_rng(seed)
    matrix = ((rng.standard_normal((5, PIECE)) + mean) * np.array(sizes)[:, None]).astype(kind)
    found = in_one_pass(matrix, rows=2)
    assert (found.minimum, found.maximum) == (matrix.min(), matrix.max())


@given(st.integers(0, 4), st.integers(0, PIECE - 1), st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans())
def test_no_number_hides_beside_larger_entries(row: int, column: int, bad: float, beside_larger: bool) -> None:
    matrix = np.random.default_rng(0).standard_normal((5, PIECE)).astype(np.float32)
    if beside_larger:
        matrix[:, ::7] *= 1e6
    matrix[row, column] = bad
    with pytest.raises(NonFiniteError):
        in_one_pass(matrix, rows=2)


def test_values_that_do_not_occur_do_not_count() -> None:
    found = moments_of_histogram(np.array([-1.0, 1.0, np.nan]), np.array([5, 5, 0]))
    assert found == Moments(10, 0.0, 1.0, 1.0, -1.0, 1.0)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e160, 1e300])
def test_squares_beyond_float64_are_refused(rng: np.random.Generator, scale: float) -> None:
    with pytest.raises(OutOfRangeError):
        in_one_pass(rng.uniform(1, 2, (50, 50)) * scale)


@given(st.lists(st.integers(-120, 120), min_size=2, max_size=400), st.integers(-30, 30))
def test_histogram_and_entries_agree(levels: list[int], exponent: int) -> None:
    entries = np.ldexp(np.array(levels, dtype=np.float32), exponent).reshape(-1, 1)
    values, counts = np.unique(entries.astype(np.float64), return_counts=True)
    counted, summed = moments_of_histogram(values, counts), in_one_pass(entries)
    assert summed.mean == pytest.approx(counted.mean, rel=1e-5, abs=1e-5 * float(np.abs(entries).max()))
    assert summed.variance == pytest.approx(counted.variance, rel=1e-4)
    assert summed.kurtosis == pytest.approx(counted.kurtosis, rel=1e-3)


@given(st.floats(1e-140, 1e140))
def test_the_scale_is_a_power_of_two_that_brings_the_largest_near_one(largest: float) -> None:
    scale = power_of_two_scale(largest)
    assert np.frexp(scale)[0] == 0.5
    assert 1e-8 <= largest * scale <= 1e8


def test_shift_and_scale_change_nothing_but_the_rounding(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((200, 100)) + 2
    assert_close(moments_of_blocks([matrix], shift=2.0, scale=0.25), by_hand(matrix), 1e-10)
