"""Shuffles made of another by moving its far entries: uniform, and with the Gram matrix that they should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tests.support.planting import noise, with_entries, with_heavy_tail, with_mean

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse, rearranged, traps
from llmtrap.spectra.entries import CountedEntries, Entries, HeldEntries
from llmtrap.spectra.rearranged import Rearrangements

Floats = NDArray[np.float32]


def held(matrix: Floats) -> HeldEntries:
    return HeldEntries(matrix, matrix.shape, float(np.abs(matrix).max()))


def counted(matrix: Floats) -> CountedEntries:
    values, counts = np.unique(np.round(matrix * 16) / 16, return_counts=True)
    return CountedEntries(values.astype(np.float64), counts, matrix.shape, float(np.abs(values).max()))


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, k]) for k in range(count)]


def passed(entries: Entries, more: int, rows: int = 37) -> tuple[Floats, Rearrangements]:
    """The first shuffle of the entries, whole, and the further ones that saw it pass by."""
    found = Rearrangements.of(entries, generators(more))
    assert found is not None
    first = np.concatenate([b.copy() for b in entries.shuffled_blocks(np.random.default_rng(9))])
    for _ in found.watch(first[k : k + rows].copy() for k in range(0, len(first), rows)):
        pass
    return first, found


@pytest.fixture(params=[held, counted])
def entries(request: pytest.FixtureRequest, rng: np.random.Generator) -> Entries:
    """A bulk with entries of 0.3 to 1.4 limits: far ones, few of them in the bulk's own tail."""
    matrix = with_heavy_tail(rng, noise(rng, (300, 200), 1.0), 0.001, 0.6)
    made: Entries = request.param(with_entries(matrix, [(0, 0), (1, 1)], [-1.4, 0.3]))
    return made


def test_each_is_a_permutation_of_the_entries(entries: Entries) -> None:
    first, found = passed(entries, 3)
    shuffles = [first, *(first + found.difference(k).toarray().astype(np.float32) for k in range(3))]
    for shuffle in shuffles[1:]:
        np.testing.assert_allclose(np.sort(shuffle, axis=None), np.sort(first, axis=None), atol=1e-6)
    distance = 0.25 * (300 * 200) ** 0.25
    places = [tuple(np.flatnonzero(np.abs(shuffle) >= distance)) for shuffle in shuffles]
    assert len(places[0]) >= 61
    assert len(set(places)) == 4, "the far entries lie elsewhere in each"
    for shuffle in shuffles[1:]:
        assert (shuffle == first).mean() > 0.99, "and the rest stays"


@pytest.mark.parametrize("shape", [(300, 200), (301, 200), (307, 211), (500, 120)])
@pytest.mark.parametrize("made", [held, lambda w: CountedEntries(*counts_of(w), w.shape, float(np.abs(w).max()))])
def test_an_entry_on_the_limit_is_far_everywhere(
    rng: np.random.Generator, made: Callable[[Floats], Entries], shape: tuple[int, int]
) -> None:
    """Whichever way float32 rounds the limit, the far entries that go are those that come."""
    matrix = noise(rng, shape, 1.0).clip(-3, 3)
    limit = 0.25 * float(shape[0] * shape[1]) ** 0.25
    for value in (np.float32(limit), np.nextafter(np.float32(limit), np.float32(0)), np.float32(9)):
        matrix.reshape(-1)[rng.choice(matrix.size, 3, replace=False)] = value
    first, found = passed(made(matrix), 2)
    for k in range(2):
        shuffle = first + found.difference(k).toarray().astype(np.float32)
        np.testing.assert_allclose(np.sort(shuffle, axis=None), np.sort(matrix, axis=None), atol=1e-6)


def counts_of(matrix: Floats) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, counts = np.unique(matrix, return_counts=True)
    return values.astype(np.float64), counts


def test_every_order_is_equally_likely() -> None:
    """Five entries, two of them far: 120 orders of a further shuffle, whatever the first one was."""
    values = np.array([1, 2, 3, 40, -50], dtype=np.float32)
    rng = np.random.default_rng(5)
    seen: Counter[tuple[float, ...]] = Counter()
    for _ in range(9600):
        first = rng.permutation(values).reshape(5, 1)
        found = Rearrangements((5, 1), values[3:], 30.0, [rng])
        for _ in found.watch(iter([first[:2].copy(), first[2:].copy()])):
            pass
        seen[tuple((first + found.difference(0).toarray()).ravel().tolist())] += 1
    assert len(seen) == 120
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


@pytest.mark.parametrize("gathered", [1, 1 << 28])
def test_the_changes_are_those_of_the_gram_matrix(
    entries: Entries, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one pass, and where the updates are too large for one."""
    monkeypatch.setattr(rearranged, "GATHERED_BYTES", gathered)
    first, found = passed(entries, 3)
    passes = 0

    def again() -> Iterator[Floats]:
        nonlocal passes
        passes += 1
        return (first[k : k + 111] for k in range(0, len(first), 111))

    wide = first.astype(np.float64)
    for k, (gram, sums) in enumerate(found.changes(again)):
        shuffle = wide + found.difference(k).toarray()
        np.testing.assert_allclose(gram, shuffle.T @ shuffle - wide.T @ wide, atol=2e-3)
        np.testing.assert_allclose(sums, shuffle.sum(axis=0) - wide.sum(axis=0), atol=1e-4)
    assert passes == (3 if gathered == 1 else 1)


def test_where_the_rest_could_make_a_trap_shuffles_are_drawn_whole(rng: np.random.Generator) -> None:
    plain, narrow = noise(rng, (300, 200), 1.0), noise(rng, (2000, 60), 1.0)
    cases = {
        "no entry is far": plain.clip(-3, 3),
        "many are": with_heavy_tail(rng, plain, 0.005, 0.6),
        "a tail just short of far": with_entries(with_heavy_tail(rng, narrow, 0.02, 0.24), [(0, 0)], [2.0]),
        "one-signed, so that the rest has a mean": np.abs(with_heavy_tail(rng, plain, 0.002, 0.6)),
    }
    assert {name: Rearrangements.of(held(matrix), generators(4)) for name, matrix in cases.items()} == dict.fromkeys(
        cases
    )
    assert Rearrangements.of(held(with_entries(plain, [(0, 0)], [2.0])), []) is None


def traps_of(matrix: Floats, shuffles: int) -> TrapAnalysis:
    found = analyse(matrix, AnalysisSettings(alpha=False, traps="measure", shuffles=shuffles)).traps
    assert found is not None
    return found


def test_counts_scatter_as_those_of_shuffles_drawn_whole(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a heavy tail near the edge: mean and spread over many shuffles agree within what chance allows."""
    matrix = with_heavy_tail(rng, noise(rng, (400, 260)), 0.0025, 0.8)
    moved = traps_of(matrix, 120)
    monkeypatch.setattr(traps._Counting, "rearrangements", lambda _: None)
    drawn = traps_of(matrix, 120)
    ours, theirs = ([c.count for c in found.counts] for found in (moved, drawn))
    assert len(set(theirs)) > 3
    assert stats.ttest_ind(ours[1:], theirs[1:]).pvalue > 1e-3
    assert stats.levene(ours[1:], theirs[1:]).pvalue > 1e-3
    top = [[c.top_z for c in found.counts[1:]] for found in (moved, drawn)]
    assert stats.ks_2samp(*top).pvalue > 1e-3


@pytest.mark.parametrize(("planted", "rearranges"), [("entry", True), ("mean", False), ("huge", False)])
def test_a_mean_and_a_huge_entry_are_drawn_whole(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, planted: str, rearranges: bool
) -> None:
    """A mean's trap differs by where the rest falls, and a huge square cannot be subtracted again."""
    matrix = with_entries(noise(rng, (300, 200)), [(3, 4)], [1e5 if planted == "huge" else 3.0])
    if planted == "mean":
        matrix = with_mean(matrix, 3.0)
    made = []
    original = Rearrangements.changes

    def noted(self: Rearrangements, *arguments: object) -> object:
        made.append(self)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Rearrangements, "changes", noted)
    found = traps_of(matrix, 4)
    assert len(found.counts) == 4
    assert len({c.top_z for c in found.counts}) == 4
    assert bool(made) == rearranges
