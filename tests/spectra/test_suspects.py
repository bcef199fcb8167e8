"""Entries that may have caused a trap are noted while a shuffle passes, and can be cleared without drawing it again."""

from __future__ import annotations

from collections.abc import Iterator

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.planting import noise

from llmtrap.spectra.backends import ArrayApiBackend, Backend, NumpyBackend
from llmtrap.spectra.suspects import MOST_SUSPECTS, Suspects
from llmtrap.spectra.traps import gram_of

Floats = NDArray[np.floating]
THRESHOLD = 20.0


def planted(rng: np.random.Generator, count: int) -> Floats:
    matrix = noise(rng, (400, 90), 1.0)
    places = rng.choice(matrix.size, count, replace=False)
    matrix.reshape(-1)[places] = (THRESHOLD + np.arange(count)) * rng.choice([-1, 1], count)
    return matrix


def by_rows(matrix: Floats, rows: int) -> Iterator[Floats]:
    for top in range(0, matrix.shape[0], rows):
        yield matrix[top : top + rows].copy()


def watched(matrix: Floats, rows: int) -> Suspects:
    suspects = Suspects(THRESHOLD)
    passed = np.concatenate(list(suspects.watch(by_rows(matrix, rows))))
    np.testing.assert_array_equal(passed, matrix)
    return suspects


@pytest.mark.parametrize("count", [0, 1, 30, MOST_SUSPECTS, MOST_SUSPECTS + 40])
@pytest.mark.parametrize("rows", [400, 64, 1])
def test_they_are_noted_in_order_with_the_rows_of_the_largest(rng: np.random.Generator, count: int, rows: int) -> None:
    matrix = planted(rng, count)
    suspects = watched(matrix, rows)
    row, column = np.nonzero(np.abs(matrix) >= THRESHOLD)
    np.testing.assert_array_equal(suspects.columns, column)
    np.testing.assert_array_equal(suspects.values, matrix[row, column])
    contents, numbers = suspects.kept_rows()
    largest = np.argsort(-np.abs(suspects.values))[:MOST_SUSPECTS]
    np.testing.assert_array_equal(numbers, np.sort(largest))
    np.testing.assert_array_equal(contents.reshape(-1, 90), matrix[row[numbers]])


@pytest.mark.parametrize("count", [0, 1, 30, MOST_SUSPECTS])
@pytest.mark.parametrize(
    "backend", [NumpyBackend(), ArrayApiBackend(array_api_strict, name="strict")], ids=["numpy", "strict"]
)
def test_the_gram_matrix_without_them_is_that_of_the_cleared_shuffle(
    rng: np.random.Generator, count: int, backend: Backend
) -> None:
    matrix = planted(rng, count)
    suspects = watched(matrix, 64)
    gram, _ = gram_of(by_rows(matrix, 64), 90, backend)
    kept = np.array(gram)
    updated = suspects.cleared_gram(gram, backend)
    expected, _ = gram_of(suspects.cleared(by_rows(matrix, 64)), 90, backend)
    assert updated is not None
    # Rounding of the largest square, not of what is left.
    tolerance = 4 * float(np.finfo(np.float32).eps) * max(float((matrix**2).sum(axis=0).max()), 1.0)
    np.testing.assert_allclose(np.asarray(updated), np.asarray(expected), atol=tolerance)
    np.testing.assert_array_equal(np.array(gram), kept)


def test_where_not_all_rows_are_kept_the_shuffle_must_be_drawn_again(rng: np.random.Generator) -> None:
    matrix = planted(rng, MOST_SUSPECTS + 1)
    gram, _ = gram_of(by_rows(matrix, 64), 90, NumpyBackend())
    assert watched(matrix, 64).cleared_gram(gram, NumpyBackend()) is None
