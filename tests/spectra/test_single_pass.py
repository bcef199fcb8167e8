"""What is gathered while a matrix passes by equals what reading it again would give, or says that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.planting import noise, with_entries, with_mean

from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse
from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.certificate import exceedances
from llmtrap.spectra.single_pass import ExtremeEntries, SinglePass
from llmtrap.spectra.value_counts import ValueCounter

Floats = NDArray[np.floating]
PLANTED = [(3, 4), (150, 31), (199, 59)]


def narrowed(matrix: Floats, kind: type[np.generic]) -> NDArray[np.float32]:
    return np.asarray(matrix.astype(kind).astype(np.float32))


def counted(*blocks: Floats) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    counter = ValueCounter()
    for block in blocks:
        counter.add(block)
    return counter.histogram


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_formats_of_16_bits_and_less_are_counted(kind: type[np.generic], rng: np.random.Generator) -> None:
    matrix = narrowed(noise(rng, (300, 70)), kind)
    found = counted(matrix[:100], matrix[100:])
    assert found is not None
    values, counts = np.unique(matrix.astype(np.float64), return_counts=True)
    np.testing.assert_array_equal(found[0], values)
    np.testing.assert_array_equal(found[1], counts)


def test_blocks_of_two_formats_are_counted_together(rng: np.random.Generator) -> None:
    """A block of zeros has any format; what comes after decides."""
    parts = [np.zeros((5, 9), np.float32), narrowed(noise(rng, (5, 9)), ml_dtypes.bfloat16)]
    parts.append(narrowed(noise(rng, (5, 9)), np.float16))
    parts.append(parts[1])
    found = counted(*parts)
    assert found is not None
    values, counts = np.unique(np.concatenate(parts).astype(np.float64), return_counts=True)
    np.testing.assert_array_equal(found[0], values)
    np.testing.assert_array_equal(found[1], counts)


def test_both_zeros_are_one_value() -> None:
    found = counted(np.array([[0.0, -0.0, 1.0]], dtype=np.float32))
    assert found is not None
    assert found[0].tolist() == [0.0, 1.0]
    assert found[1].tolist() == [2, 1]


def test_entries_of_full_width_are_not_counted(rng: np.random.Generator) -> None:
    narrow = narrowed(noise(rng, (20, 10)), ml_dtypes.bfloat16)
    assert counted(narrow, noise(rng, (20, 10)), narrow) is None
    assert counted(narrow.astype(np.float64)) is None


@pytest.mark.parametrize("most", [1, 40, 400, 10_000])
@pytest.mark.parametrize("rows", [1, 37, 200])
def test_the_farthest_entries_are_all_there_or_it_says_so(most: int, rows: int, rng: np.random.Generator) -> None:
    matrix = with_entries(with_mean(noise(rng, (200, 60)), 1.0), PLANTED, [2.5, -3.0, 2.0])
    farthest = ExtremeEntries((200, 60), most)
    for top in range(0, 200, rows):
        farthest.add(matrix[top : top + rows], top)
    centre, deviation = float(matrix.mean()), float(matrix.std())
    answered = 0
    for sigmas in (0.5, 1.0, 2.0, 3.0, 6.0, 1e9):
        truth = exceedances([matrix], centre, sigmas * deviation)
        found = farthest.beyond(centre, sigmas * deviation)
        if found is None:
            assert truth.values.size > most
            continue
        answered += 1
        np.testing.assert_array_equal(found.rows, truth.rows)
        np.testing.assert_array_equal(found.columns, truth.columns)
        np.testing.assert_array_equal(found.values, truth.values)
    assert answered >= (1 if most == 1 else 3)


def test_a_matrix_of_few_values_keeps_no_half_of_its_greatest() -> None:
    """Of equal entries at the limit some do not fit: none is kept rather than some."""
    matrix = np.tile(np.array([[-1.0, 0.0, 0.0, 1.0]], dtype=np.float32), (100, 1))
    farthest = ExtremeEntries((100, 4), 10)
    for top in range(0, 100, 20):
        farthest.add(matrix[top : top + 20], top)
    assert farthest.beyond(0.0, 0.5) is None
    found = farthest.beyond(0.0, 1.5)
    assert found is not None
    assert found.values.size == 0


def test_the_gram_matrix_is_that_of_all_blocks(rng: np.random.Generator) -> None:
    matrix = noise(rng, (200, 60))
    passed = SinglePass((200, 60), NumpyBackend(), gram=True)
    for top in range(0, 200, 64):
        passed.add(matrix[top : top + 64])
    product = matrix.T.astype(np.float64) @ matrix
    np.testing.assert_allclose(np.tril(np.asarray(passed.gram)), np.tril(product), rtol=1e-6, atol=1e-7)


# -- what an analysis reads ---------------------------------------------------------------------------------------


@dataclass
class Tape:
    """A matrix whose passes are counted, in blocks that the next overwrites."""

    array: Floats
    entries: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.array.shape[0], self.array.shape[1])

    def blocks(self) -> Iterator[Floats]:
        self.entries.append(0)
        buffer = np.empty((32, self.array.shape[1]), dtype=self.array.dtype)
        for start in range(0, len(self.array), 32):
            piece = buffer[: len(self.array) - start]
            piece[:] = self.array[start : start + 32]
            self.entries[-1] += piece.size
            yield piece

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        self.entries.append(self.array.size)
        values, counts = np.unique(self.array.astype(np.float64), return_counts=True)
        return values, counts

    def packed_blocks(self) -> None:
        return None


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix is too large to hold."""
    monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)


def tall(rng: np.random.Generator) -> Floats:
    return with_entries(with_mean(noise(rng, (900, 60)), 2.0), [(150, 31), (899, 2)], [2.5, -2.5])


def places(found: MatrixAnalysis) -> list[tuple[str, int | None, int | None, float | None]]:
    assert found.traps is not None
    causes = [trap.cause for trap in found.traps.found]
    return [(cause.kind, cause.row, cause.column, cause.value) for cause in causes]


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("traps", ["auto", "measure", "certify"])
@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_a_matrix_too_large_to_hold_is_read_once_for_everything(
    traps: str, kind: type[np.generic], rng: np.random.Generator
) -> None:
    matrix = narrowed(tall(rng), kind)
    tape = Tape(matrix)
    found = analyse(tape, AnalysisSettings(traps=traps))
    assert tape.entries == [matrix.size]
    assert found.esd is not None
    eigenvalues = np.linalg.eigvalsh(matrix.T.astype(np.float64) @ matrix)
    np.testing.assert_allclose(found.esd.eigenvalues, eigenvalues, rtol=1e-6)
    expected: list[tuple[str, int | None, int | None, float | None]] = [("mean_shift", None, None, None)]
    expected += [("entry", row, column, float(matrix[row, column])) for row, column in ((150, 31), (899, 2))]
    assert sorted(places(found), key=str) == ([] if traps == "certify" else sorted(expected, key=str))


@pytest.mark.usefixtures("streamed")
def test_float32_that_is_certified_is_read_once_and_else_once_more_to_be_held(rng: np.random.Generator) -> None:
    plain = Tape(noise(rng, (900, 60)))
    assert analyse(plain).traps is not None
    assert len(plain.entries) == 1
    trapped = Tape(tall(rng))
    assert len(places(analyse(trapped))) == 3
    assert len(trapped.entries) == 2


@pytest.mark.usefixtures("streamed")
def test_entries_that_leave_float32_are_read_again_to_be_scaled(rng: np.random.Generator) -> None:
    matrix = noise(rng, (900, 60)) * np.float32(2.0**90)
    found, plain = analyse(Tape(matrix)), analyse(matrix / np.float32(2.0**90))
    assert found.esd is not None and plain.esd is not None  # noqa: PT018 - narrows both
    np.testing.assert_allclose(found.esd.eigenvalues / 4.0**90, plain.esd.eigenvalues, rtol=1e-6)


def test_without_alpha_the_values_are_counted_and_what_is_shuffled_is_read_once_more(rng: np.random.Generator) -> None:
    matrix = narrowed(tall(rng), ml_dtypes.bfloat16)
    tape = Tape(matrix)
    found = analyse(tape, AnalysisSettings(alpha=False))
    assert len(places(found)) == 3
    assert tape.entries == [matrix.size] * 2
    counted_only = Tape(matrix)
    analyse(counted_only, AnalysisSettings(alpha=False, traps="certify"))
    assert counted_only.entries == [matrix.size]


@pytest.mark.parametrize("held", [True, False])
def test_not_a_number_is_located_without_reading_again(
    held: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    if not held:
        monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)
    matrix = narrowed(noise(rng, (900, 60)), ml_dtypes.bfloat16)
    matrix[140, 7] = matrix[800, 1] = np.nan
    matrix[500, 3] = -np.inf
    tape = Tape(matrix)
    found = analyse(tape).non_finite
    assert found is not None
    assert (found.nan, found.inf, found.row, found.column) == (2, 1, 140, 7)
    assert tape.entries == [matrix.size]
