"""One matrix through everything: laws of invariance, input that is no weight at all, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.planting import noise, with_entries, with_mean

from llmtrap.errors import MatrixError
from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse
from llmtrap.spectra.measured import NonFinite

Floats = NDArray[np.floating]
MEASURE = AnalysisSettings(traps="measure")


@dataclass(frozen=True)
class Blocks:
    """A matrix that is read by blocks of rows, each overwritten by the next, as a checkpoint's are."""

    array: Floats
    rows: int
    counted: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return (self.array.shape[0], self.array.shape[1])

    def blocks(self) -> Iterator[Floats]:
        buffer = np.empty((self.rows, self.array.shape[1]), dtype=self.array.dtype)
        for start in range(0, len(self.array), self.rows):
            piece = buffer[: len(self.array) - start]
            piece[:] = self.array[start : start + self.rows]
            yield piece

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        if not self.counted:
            return None
        values, counts = np.unique(self.array.astype(np.float64), return_counts=True)
        return values, counts


@pytest.fixture(params=["held", "streamed"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of reading: held in memory, and by blocks each time."""
    if request.param == "streamed":
        monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)
    return str(request.param)


def some_matrix(seed: int) -> Floats:
    """A small matrix of one of the kinds an audit meets."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(52, 90)), int(rng.integers(52, 90)))
    matrix = noise(rng, shape)
    kind = seed % 4
    if kind == 1:
        matrix = with_entries(matrix, [(3, 4)], [2.5])
    if kind == 2:
        matrix = with_mean(matrix, 2.5)
    if kind == 3:
        matrix = np.asarray(matrix @ noise(rng, (shape[1], shape[1])), dtype=np.float32)
    return matrix


def outcome(matrix: Floats) -> tuple[float, int, int, bool, tuple[str, ...]]:
    found = analyse(matrix, MEASURE, matrix_id="m")
    assert found.esd is not None
    assert found.esd.fit is not None
    assert found.traps is not None
    kinds = tuple(trap.cause.kind for trap in found.traps.found)
    return found.esd.fit.alpha, found.traps.centred, found.traps.mean_shift, found.traps.certificate.certified, kinds


def assert_same(one: Floats, two: Floats) -> None:
    first, second = outcome(one), outcome(two)
    assert second[0] == pytest.approx(first[0], rel=1e-4)
    assert second[1:] == first[1:]


# -- what changes nothing -----------------------------------------------------------------------------------------

some = settings(max_examples=25, deadline=None, derandomize=True)


@some
@given(st.integers(0, 10_000), st.integers(-120, 120))
def test_a_power_of_two_changes_nothing(seed: int, exponent: int) -> None:
    matrix = some_matrix(seed)
    assert_same(matrix, np.ldexp(matrix, exponent))


@some
@given(st.integers(0, 10_000), st.floats(-27, 36), st.booleans())
def test_no_other_factor_changes_anything(seed: int, exponent: float, negative: bool) -> None:
    matrix = some_matrix(seed)
    factor = np.float64(10.0**exponent) * (-1 if negative else 1)
    assert_same(matrix, (matrix * factor).astype(np.float32))


@some
@given(st.integers(0, 10_000))
def test_orientation_and_order_of_rows_and_columns_change_nothing(seed: int) -> None:
    matrix = some_matrix(seed)
    rng = np.random.default_rng(seed)
    mixed = matrix[rng.permutation(matrix.shape[0])][:, rng.permutation(matrix.shape[1])]
    certified = outcome(matrix)[3]
    for other in (matrix.T, mixed):
        one, two = analyse(matrix, MEASURE), analyse(other, MEASURE)
        assert one.esd is not None and two.esd is not None  # noqa: PT018 - narrows both
        assert one.esd.fit is not None and two.esd.fit is not None  # noqa: PT018
        assert two.esd.fit.alpha == pytest.approx(one.esd.fit.alpha, rel=1e-4)
        # The same shuffle of another order is another draw: what was planted far beyond the edge stays beyond it.
        assert outcome(other)[1:4] == (*outcome(matrix)[1:3], certified)


def test_places_follow_the_stored_orientation() -> None:
    matrix = with_entries(noise(np.random.default_rng(5), (90, 60)), [(70, 8)], [3.0])
    for stored, place in ((matrix, (70, 8)), (np.ascontiguousarray(matrix.T), (8, 70)), (matrix.T, (8, 70))):
        traps = analyse(stored).traps
        assert traps is not None
        assert [(t.cause.row, t.cause.column) for t in traps.found] == [place]


@pytest.mark.parametrize("rows", [1, 13, 64, 200])
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_change_nothing(reading: str, rows: int, turned: bool) -> None:
    matrix = with_entries(with_mean(noise(np.random.default_rng(1), (200, 60)), 2.0), [(150, 31)], [2.5])
    whole = analyse(matrix.T.copy() if turned else matrix, MEASURE)
    found = analyse(Blocks(matrix.T.copy() if turned else matrix, rows), MEASURE)
    assert found.esd is not None and whole.esd is not None  # noqa: PT018
    assert found.traps is not None and whole.traps is not None  # noqa: PT018
    np.testing.assert_allclose(found.esd.eigenvalues, whole.esd.eigenvalues, rtol=1e-6)
    assert found.moments is not None and whole.moments is not None  # noqa: PT018
    assert found.moments.variance == pytest.approx(whole.moments.variance, rel=1e-6)
    assert [c.count for c in found.traps.counts] == [c.count for c in whole.traps.counts]
    assert [t.cause.row for t in found.traps.found] == [t.cause.row for t in whole.traps.found]
    np.testing.assert_allclose(
        [c.top_z for c in found.traps.counts], [c.top_z for c in whole.traps.counts], rtol=1e-4
    )  # fmt: skip


def test_a_matrix_too_large_to_hold_is_drawn_from_its_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)
    rng = np.random.default_rng(3)
    matrix = np.round(rng.standard_normal((400, 60)) * 4).astype(np.float32) / 4
    matrix[333, 44] = 40.0
    found = analyse(Blocks(matrix, 50, counted=True), MEASURE)
    assert found.traps is not None
    assert [(t.cause.kind, t.cause.row, t.cause.column, t.cause.value) for t in found.traps.found] == [
        ("entry", 333, 44, 40.0)
    ]


def test_without_alpha_a_histogram_alone_certifies() -> None:
    class NeverDecoded(Blocks):
        def blocks(self) -> Iterator[Floats]:
            raise AssertionError("the bytes were decoded")

    matrix = np.round(np.random.default_rng(4).standard_normal((200, 120)) * 8).astype(np.float32)
    found = analyse(NeverDecoded(matrix, 50, counted=True), AnalysisSettings(alpha=False))
    assert found.esd is None
    assert found.traps is not None
    assert found.traps.method == "certified"


def test_two_runs_agree_to_the_last_bit() -> None:
    matrix = with_entries(noise(np.random.default_rng(8), (450, 410)), [(1, 2)], [1.2])
    one, two = (analyse(matrix, MEASURE, matrix_id="m") for _ in range(2))
    assert one.traps is not None and two.traps is not None  # noqa: PT018
    assert one.traps.counts == two.traps.counts
    assert one.traps.found == two.traps.found
    other = analyse(matrix, MEASURE, matrix_id="n").traps
    assert other is not None
    assert other.counts != one.traps.counts


def test_the_callers_array_is_left_as_it_was() -> None:
    matrix = with_entries(noise(np.random.default_rng(8), (90, 80)), [(1, 2)], [3.0])
    kept = matrix.copy()
    analyse(matrix, MEASURE)
    assert (matrix == kept).all()


@pytest.mark.parametrize("kind", ["f2", "i1", "i8", "f4", "f8"])
def test_other_widths_are_converted(kind: str) -> None:
    matrix = np.random.default_rng(6).integers(-40, 40, (80, 60)).astype(kind)
    found, plain = analyse(matrix), analyse(matrix.astype(np.float64))
    assert found.esd is not None and plain.esd is not None  # noqa: PT018
    np.testing.assert_allclose(found.esd.eigenvalues, plain.esd.eigenvalues, rtol=1e-6)


# -- what is no weight matrix ---------------------------------------------------------------------------------------


def measured(matrix: Floats) -> MatrixAnalysis:
    found = analyse(matrix, MEASURE)
    assert found.esd is not None
    assert found.traps is not None
    assert np.isfinite(found.esd.eigenvalues).all()
    return found


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e-45, 3e38])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (60, 40), (40, 600)])
def test_a_constant(value: float, shape: tuple[int, int]) -> None:
    """No spread: certified, since a shuffle changes nothing; rank 1 or 0; no exponent."""
    found = measured(np.full(shape, value, dtype=np.float32))
    assert found.esd is not None and found.traps is not None  # noqa: PT018
    assert found.esd.fit is None
    assert found.esd.hard_rank == (value != 0)
    assert found.traps.method == "certified"
    assert found.traps.count == 0
    assert found.traps.edge is None


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (64, 64)])
def test_one_hot(shape: tuple[int, int]) -> None:
    """One entry and nothing else: a trap of that entry."""
    matrix = np.zeros(shape, dtype=np.float32)
    matrix[30, 20] = -2.0
    found = measured(matrix)
    assert found.esd is not None and found.traps is not None  # noqa: PT018
    assert (found.esd.hard_rank, found.esd.rank_deficient, found.esd.fit) == (1, True, None)
    assert [(t.cause.kind, t.cause.row, t.cause.column, t.cause.value) for t in found.traps.found] == [
        ("entry", 30, 20, -2.0)
    ]


def test_rank_one() -> None:
    """Structure of the directions, not of the entries: the ESD shows it, and a shuffle destroys it."""
    rng = np.random.default_rng(2)
    left, right = rng.integers(1, 9, 80), rng.choice([-3, -2, -1, 1, 2, 3], 60)
    found = measured(np.outer(left, right).astype(np.float32))
    assert found.esd is not None and found.traps is not None  # noqa: PT018
    assert (found.esd.hard_rank, found.esd.rank_deficient, found.esd.fit) == (1, True, None)
    assert found.traps.centred == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 3), (1, 500), (500, 1), (50_000, 8), (8, 50_000)])
def test_tiny_and_narrow_matrices_claim_nothing(shape: tuple[int, int]) -> None:
    found = measured(np.random.default_rng(9).standard_normal(shape).astype(np.float32))
    assert found.esd is not None and found.traps is not None  # noqa: PT018
    assert found.esd.eigenvalues.size == min(shape)
    assert found.esd.fit is None or (not found.esd.fit.reliable and found.esd.fit.band is None)
    assert not found.traps.reliable
    assert not found.esd.rank_deficient


@pytest.mark.parametrize("exponent", [-43, -38, -30, -15, 15, 30, 37])
def test_any_scale_of_float32(exponent: int) -> None:
    rng = np.random.default_rng(10)
    matrix = with_entries(noise(rng, (90, 60), 1.0), [(7, 8)], [3.0]) * np.float64(10.0**exponent)
    found = measured(matrix.astype(np.float32))
    assert found.traps is not None
    assert [(t.cause.kind, t.cause.row, t.cause.column) for t in found.traps.found] == [("entry", 7, 8)]


@pytest.mark.parametrize("exponent", [-138, -60, 60, 136])
def test_any_scale_of_float64_whose_squares_exist(exponent: int) -> None:
    rng = np.random.default_rng(10)
    matrix = with_entries(noise(rng, (90, 60), 1.0), [(7, 8)], [3.0]) * np.float64(10.0**exponent)
    found = measured(matrix)
    assert found.traps is not None
    assert [(t.cause.kind, t.cause.row, t.cause.column) for t in found.traps.found] == [("entry", 7, 8)]


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e307])
def test_squares_beyond_float64_are_an_error_that_says_so(scale: float) -> None:
    matrix = np.random.default_rng(10).uniform(1, 9, (60, 50)) * scale
    for settings_ in (MEASURE, AnalysisSettings(alpha=False, traps="certify")):
        with pytest.raises(MatrixError, match="leave the range of float64"):
            analyse(matrix, settings_)


@pytest.mark.parametrize("huge", [1e10, 1e25, 1e36, 3.4e38])
def test_a_flipped_exponent_bit_is_one_entry_and_hides_no_other(huge: float) -> None:
    matrix = with_entries(noise(np.random.default_rng(11), (128, 128)), [(5, 6)], [4.0])
    matrix[99, 3] = huge
    found = measured(matrix)
    assert found.traps is not None
    first = found.traps.found[0].cause
    assert (first.kind, first.row, first.column, first.value) == ("entry", 99, 3, float(np.float32(huge)))
    assert found.traps.bulk.deviation == pytest.approx(0.02, rel=0.02)
    assert found.traps.counts[0].count <= 2


@pytest.mark.parametrize("reader", [lambda a: a, lambda a: Blocks(a, 7), lambda a: Blocks(a, 7, counted=True)])
@pytest.mark.parametrize("alpha", [True, False])
def test_non_finite_entries_are_counted_and_placed(reader: object, alpha: bool) -> None:
    matrix = noise(np.random.default_rng(12), (50, 30))
    matrix[20, 7], matrix[20, 29], matrix[49, 0] = np.nan, -np.inf, np.inf
    found = analyse(reader(matrix), AnalysisSettings(alpha=alpha))  # type: ignore[operator]
    assert found == MatrixAnalysis((50, 30), None, None, None, NonFinite(nan=1, inf=2, row=20, column=7))


def test_all_entries_nan() -> None:
    found = analyse(np.full((6, 5), np.nan, dtype=np.float32))
    assert found.non_finite == NonFinite(nan=30, inf=0, row=0, column=0)
