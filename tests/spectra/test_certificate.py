"""The certificate's arithmetic, the bulk without its outliers, and the formulas for what separates."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from llmtrap.spectra.certificate import (
    Bulk,
    bulk_of,
    bulk_of_histogram,
    certify,
    entry_limit,
    exceedances,
    expected_overlaps,
    predicted_outlier,
)
from llmtrap.spectra.moments import MomentPass, Moments

Floats = NDArray[np.floating]


def moments_of(matrix: Floats) -> Moments:
    sums = MomentPass()
    sums.add(matrix)
    return sums.finish([matrix])


def bulk_by_blocks(matrix: Floats, rows: int = 50) -> Bulk:
    def blocks() -> Iterable[Floats]:
        return (matrix[k : k + rows] for k in range(0, len(matrix), rows))

    return bulk_of(matrix.shape, moments_of(matrix), blocks)  # type: ignore[arg-type]


def test_the_ratios_are_their_formulas() -> None:
    moments = Moments(count=512 * 256, mean=0.1, variance=4.0, kurtosis=3.5, minimum=-9.0, maximum=20.0)
    bulk = Bulk(mean=0.05, variance=3.9)
    found = certify((256, 512), moments, bulk)
    root = math.sqrt(512 * 256)
    assert found.entry_ratio == pytest.approx((20 - 0.05) ** 2 / (3.9 * root))
    assert found.mean_ratio == pytest.approx(0.05**2 * root / 3.9)
    assert found.max_sigmas == pytest.approx((20 - 0.05) / math.sqrt(3.9))
    assert found.kurtosis == 3.5
    assert found == certify((512, 256), moments, bulk)


@pytest.mark.parametrize("seed", range(8))
def test_the_bulk_of_counted_values_is_that_of_the_entries(seed: int) -> None:
    """Gaussian, heavy-tailed, with planted entries that hold most of the variance, one-hot, and constant."""
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.standard_t(2.5 if seed % 2 else 30, (120, 80)) * 64).astype(np.float32) / 64 + seed
    if seed in (2, 3):
        matrix[::17, ::13] = 4e3
    if seed == 6:
        matrix = np.eye(120, 80, dtype=np.float32)
    if seed == 7:
        matrix[:] = 2.5
    values, counts = np.unique(matrix.astype(np.float64), return_counts=True)
    found, expected = bulk_of_histogram((120, 80), values, counts), bulk_by_blocks(matrix)
    assert found.mean == pytest.approx(expected.mean, rel=1e-5)
    assert found.variance == pytest.approx(expected.variance, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "certified"),
    [
        ({}, True),
        ({"maximum": math.sqrt(0.26 * 512)}, False),
        ({"minimum": -math.sqrt(0.26 * 512)}, False),
        ({"maximum": math.sqrt(0.24 * 512)}, True),
        ({"mean": math.sqrt(0.26 / 512)}, False),
        ({"mean": -math.sqrt(0.24 / 512)}, True),
        ({"kurtosis": 1.26 * 8}, False),
        ({"kurtosis": 1.24 * 8}, True),
    ],
)
def test_each_condition_alone_withholds_the_certificate(change: dict[str, float], certified: bool) -> None:
    plain = {"mean": 0.0, "variance": 1.0, "kurtosis": 3.0, "minimum": -5.0, "maximum": 5.0}
    moments = Moments(count=512 * 512, **(plain | change))
    assert certify((512, 512), moments, Bulk(moments.mean, 1.0)).certified is certified


def test_a_narrow_matrix_bears_less_kurtosis() -> None:
    moments = Moments(8000 * 128, 0.0, 1.0, 6.0, -5.0, 5.0)
    assert not certify((8000, 128), moments, Bulk(0.0, 1.0)).certified
    assert certify((1012, 1012), moments, Bulk(0.0, 1.0)).certified


def test_a_gaussian_matrix_has_its_own_moments_for_bulk(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((300, 200)).astype(np.float32)
    moments = moments_of(matrix)
    assert bulk_by_blocks(matrix) == Bulk(moments.mean, moments.variance)


def in_the_open(matrix: Floats) -> Bulk:
    """The bulk by its definition, in float64, all entries in hand."""
    limit, kept = entry_limit(*matrix.shape), matrix.astype(np.float64).reshape(-1)
    values = kept
    while True:
        inside = np.abs(values - kept.mean()) <= limit * kept.std()
        if values[inside].size == kept.size:
            return Bulk(float(kept.mean()), float(kept.var()))
        kept = values[inside]


@pytest.mark.parametrize("size", [20.0, 60.0, 1e3, 1e5, 1e8, 1e20, 1e38])
@pytest.mark.parametrize("entries", [1, 7])
def test_huge_entries_leave_the_bulk_whatever_their_size(rng: np.random.Generator, size: float, entries: int) -> None:
    matrix = (rng.standard_normal((160, 100)) + 0.01).astype(np.float32)
    places = rng.choice(matrix.size, entries, replace=False)
    matrix.reshape(-1)[places] = size
    expected, found = in_the_open(matrix), bulk_by_blocks(matrix)
    assert found.variance == pytest.approx(expected.variance, rel=1e-4)
    assert found.mean == pytest.approx(expected.mean, abs=1e-4)


def test_outliers_hidden_behind_greater_ones(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((200, 100)).astype(np.float32)
    matrix[0, :6] = [30, 300, 3e4, 3e6, -3e9, 3e15]
    expected, found = in_the_open(matrix), bulk_by_blocks(matrix)
    assert found.variance == pytest.approx(expected.variance, rel=1e-4)
    assert found.variance == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("offset", [0.0, 1.0, -1e6])
def test_a_bulk_never_loses_its_last_spread(offset: float) -> None:
    matrix = np.full((60, 40), offset, dtype=np.float32)
    matrix[7, 9] += 1.0
    found = bulk_by_blocks(matrix)
    assert found.variance == pytest.approx(1 / 2400, rel=1e-2)


def test_a_constant_matrix_is_certified() -> None:
    matrix = np.full((60, 40), 2.5, dtype=np.float32)
    found = certify((60, 40), moments_of(matrix), bulk_by_blocks(matrix))
    assert found.certified
    assert (found.entry_ratio, found.mean_ratio, found.kurtosis, found.max_sigmas) == (0.0, 0.0, 0.0, 0.0)


def test_exceedances_have_their_places_in_the_stored_matrix(rng: np.random.Generator) -> None:
    matrix = rng.uniform(-1, 1, (90, 30)).astype(np.float32)
    matrix[0, 3], matrix[44, 29], matrix[89, 0] = 5.0, -6.0, 7.0
    found = exceedances([matrix[:40], matrix[40:45], matrix[45:]], 0.5, 4.0)
    assert list(zip(found.rows.tolist(), found.columns.tolist(), found.values.tolist(), strict=True)) == [
        (0, 3, 5.0), (44, 29, -6.0), (89, 0, 7.0),
    ]  # fmt: skip
    assert found.values.dtype == np.float32


def test_a_distance_beyond_float32_exceeds_nothing() -> None:
    found = exceedances([np.full((3, 3), 3e38, dtype=np.float32)], 0.0, 1e39)
    assert found.rows.size == 0


@pytest.mark.parametrize("shape", [(400, 400), (600, 200)])
@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_where_an_entry_puts_its_eigenvalue_and_vectors(
    rng: np.random.Generator, shape: tuple[int, int], ratio: float
) -> None:
    n, m = shape
    matrix = rng.standard_normal(shape)
    matrix[5, 7] = ratio * entry_limit(n, m)
    strength = matrix[5, 7] ** 2 / n
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    assert values[0] ** 2 / n == pytest.approx(predicted_outlier(strength, m / n), rel=0.1)
    on_right, on_left = expected_overlaps(strength, m / n)
    assert right[0, 7] ** 2 == pytest.approx(on_right, abs=0.2)
    assert left[5, 0] ** 2 == pytest.approx(on_left, abs=0.2)


def test_at_the_limit_the_overlap_vanishes() -> None:
    aspect = 0.25
    assert expected_overlaps(math.sqrt(aspect), aspect) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert expected_overlaps(0.1 * math.sqrt(aspect), aspect) == (0.0, 0.0)
    assert predicted_outlier(math.sqrt(aspect), aspect) == pytest.approx((1 + math.sqrt(aspect)) ** 2)
