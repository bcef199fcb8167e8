"""What is planted is found and attributed: entries with their places, mean shifts, heavy tails, and all at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.planting import limit, noise, with_entries, with_heavy_tail, with_mean

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse

SHAPES = [
    (64, 64), (100, 64), (64, 320), (512, 128), (128, 1024), (4480, 64),
    (256, 256), (200, 500), (420, 420), (1000, 400), (720, 1440), (1440, 1440),
]  # fmt: skip


def traps_of(matrix: NDArray[np.float32]) -> TrapAnalysis:
    found = analyse(matrix, AnalysisSettings(alpha=False)).traps
    assert found is not None
    return found


def kinds(traps: TrapAnalysis) -> list[str]:
    return [trap.cause.kind for trap in traps.found]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_planted_entry_is_named_by_its_place(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    place = (shape[0] - 3, shape[1] // 2)
    matrix = with_entries(noise(rng, shape), [place], [-2.0])
    traps = traps_of(matrix)
    assert (traps.count, traps.centred, traps.mean_shift) == (1, 1, 0)
    (trap,) = traps.found
    assert (trap.cause.kind, trap.cause.row, trap.cause.column) == ("entry", *place)
    assert trap.cause.value == matrix[place]
    assert trap.cause.sigmas == pytest.approx(-2 * limit(shape), rel=0.05)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_shift_is_told_from_an_entry(rng: np.random.Generator, shape: tuple[int, int], sign: int) -> None:
    if min(shape) > 500 and sign < 0:
        pytest.skip("one sign is enough on a large matrix")
    traps = traps_of(with_mean(noise(rng, shape), sign * 2.2))
    assert (traps.count, traps.centred, traps.mean_shift) == (1, 0, 1)
    assert kinds(traps) == ["mean_shift"]


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] * s[1] >= 30_000 and min(s) < 1000], ids=str)
def test_a_heavy_tail_is_no_single_entry(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    """Each entry stays under 0.75 of the limit; together they separate."""
    matrix = with_heavy_tail(rng, noise(rng, shape), 0.008, 0.75)
    traps = traps_of(matrix)
    assert traps.centred >= 1
    assert traps.mean_shift == 0
    assert set(kinds(traps)) == {"heavy_tail"}


@pytest.mark.parametrize("shape", [(300, 200), (200, 640), (500, 500)], ids=str)
def test_a_mean_and_two_entries_at_once(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    places = [(5, 9), (150, 77)]
    matrix = with_entries(with_mean(noise(rng, shape), 2.5), places, [2.2, -2.6])
    traps = traps_of(matrix)
    assert (traps.count, traps.centred, traps.mean_shift) == (3, 2, 1)
    assert sorted(kinds(traps)) == ["entry", "entry", "mean_shift"]
    named = {(t.cause.row, t.cause.column): t.cause.value for t in traps.found if t.cause.kind == "entry"}
    assert named == {place: float(matrix[place]) for place in places}


@pytest.mark.parametrize("places", [[(3, 50), (170, 50)], [(60, 4), (60, 199)]], ids=["column", "row"])
def test_two_entries_of_one_column_or_row(rng: np.random.Generator, places: list[tuple[int, int]]) -> None:
    """Where they lie together in the stored matrix, the shuffle parts them: two traps, each with its own place."""
    matrix = with_entries(noise(rng, (300, 200)), places, [2.0, 2.4])
    traps = traps_of(matrix)
    assert traps.centred == 2
    assert {(t.cause.row, t.cause.column) for t in traps.found} == set(places)


def test_equal_entries_have_each_a_place_of_their_own(rng: np.random.Generator) -> None:
    places = [(1, 1), (100, 20), (250, 199)]
    matrix = with_entries(noise(rng, (300, 200)), places, [2.0, 2.0, 2.0])
    traps = traps_of(matrix)
    assert sorted((t.cause.row, t.cause.column) for t in traps.found) == places  # type: ignore[type-var]


def test_many_entries_are_all_found(rng: np.random.Generator) -> None:
    places = [(10 * k, (37 * k) % 250) for k in range(30)]
    matrix = with_entries(noise(rng, (400, 250)), places, [2.0 + k / 20 for k in range(30)])
    traps = traps_of(matrix)
    # Two of them may meet in a row or column of a shuffle, and then there is one eigenvalue less.
    named = [(t.cause.row, t.cause.column) for t in traps.found if t.cause.kind == "entry"]
    # Of 435 pairs 2.8 meet on average.
    assert 24 <= traps.centred <= 30
    assert len(named) == len(set(named)) >= 24
    assert set(named) <= set(places)


def test_an_entry_above_a_heavy_tail_is_named_and_the_tail_remains(rng: np.random.Generator) -> None:
    matrix = with_entries(with_heavy_tail(rng, noise(rng, (400, 300)), 0.01, 0.75), [(7, 8)], [3.5])
    traps = traps_of(matrix)
    assert {"entry", "heavy_tail"} == set(kinds(traps))
    (entry,) = [t.cause for t in traps.found if t.cause.kind == "entry"]
    assert (entry.row, entry.column) == (7, 8)


def test_entries_of_a_tall_matrix_near_the_limit(rng: np.random.Generator) -> None:
    """On the long side of a tall matrix the singular vector hardly sits on the entry; it is found all the same."""
    found = 0
    for _ in range(10):
        matrix = with_entries(noise(rng, (3000, 64)), [(2500, 30)], [1.7])
        traps = traps_of(matrix)
        if traps.centred:
            found += 1
            assert [(t.cause.kind, t.cause.row, t.cause.column) for t in traps.found] == [("entry", 2500, 30)]
    assert found >= 8


def test_the_first_shuffles_traps_are_strongest_first_within_a_kind(rng: np.random.Generator) -> None:
    matrix = with_entries(with_mean(noise(rng, (300, 300)), 2.0), [(1, 2), (3, 4), (5, 6)], [2.0, 4.0, 3.0])
    traps = traps_of(matrix)
    assert kinds(traps) == ["mean_shift", "entry", "entry", "entry"]
    assert [t.cause.row for t in traps.found[1:]] == [3, 5, 1]
    assert [t.z for t in traps.found[1:]] == sorted((t.z for t in traps.found[1:]), reverse=True)
