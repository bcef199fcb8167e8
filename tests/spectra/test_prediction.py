"""Predicted traps: those that every shuffle shows, told without one; and nothing where that is not certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.planting import limit, noise, with_entries, with_heavy_tail, with_mean

from llmtrap.packed import Packed
from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse
from llmtrap.spectra.prediction import most_far
from llmtrap.spectra.readers import Histogram

Floats = NDArray[np.float32]

QUICK = AnalysisSettings(alpha=False)


def traps_of(matrix: object, chosen: AnalysisSettings = QUICK) -> TrapAnalysis:
    found = analyse(matrix, chosen).traps  # type: ignore[arg-type]
    assert found is not None
    return found


def measured(matrix: Floats, rule: str = "tracy-widom") -> TrapAnalysis:
    return traps_of(matrix, AnalysisSettings(alpha=False, traps="measure", rule=rule))


@dataclass(frozen=True)
class ArrayBlocks:
    """A matrix as a checkpoint of 32-bit weights gives it: by blocks of rows."""

    matrix: Floats

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape  # type: ignore[return-value]

    def blocks(self) -> Iterator[Floats]:
        return (self.matrix[k : k + 30].copy() for k in range(0, len(self.matrix), 30))

    def histogram(self) -> Histogram | None:
        return None

    def packed_blocks(self) -> Iterator[Packed] | None:
        return None


class CountedReader(ArrayBlocks):
    """As one of 16-bit weights does: its histogram at once, its blocks when asked for."""

    def histogram(self) -> Histogram:
        values, counts = np.unique(self.matrix, return_counts=True)
        return values.astype(np.float64), counts


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(400, 300), (300, 300), (2000, 120), (150, 900), (500, 620)]),
    ratios=st.lists(st.floats(2.2, 40), min_size=1, max_size=2),
    law=st.sampled_from(["gaussian", "laplace", "uniform"]),
)
def test_what_is_predicted_is_measured(seed: int, shape: tuple[int, int], ratios: list[float], law: str) -> None:
    """Count and causes in every shuffle, and z within what shuffles differ by."""
    rng = np.random.default_rng(seed)
    draw = {"gaussian": rng.standard_normal, "laplace": rng.laplace, "uniform": lambda size: rng.uniform(-1, 1, size)}
    matrix = np.asarray(draw[law](size=shape) * 0.02, dtype=np.float32)
    # Mean zero whatever the draw, so that the entries alone decide.
    matrix -= matrix.mean()
    matrix = with_entries(matrix, [(7 + 5 * k, 11 + 3 * k) for k in range(len(ratios))], ratios)
    quick = traps_of(matrix)
    if quick.method != "predicted":
        return
    slow = measured(matrix)
    assert quick.count == quick.centred == len(ratios)
    together = len(ratios) > 1 and slow.count < len(ratios)
    if not together:  # two of them in one row or column of a shuffle are one: most_far keeps that rare
        assert {(c.count, c.centred) for c in slow.counts} == {(len(ratios), len(ratios))}
        # Of two entries of one value either may be named first.
        assert {t.cause for t in quick.found} == {t.cause for t in slow.found}
        for ours, theirs in zip(quick.found, slow.found, strict=True):
            assert ours.strength == pytest.approx(theirs.strength, rel=0.25)


@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (600, 60), (512, 512)])
def test_a_mean_far_beyond_its_limit_is_predicted(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    matrix = with_mean(noise(rng, shape), 4.0)
    quick, slow = traps_of(matrix), measured(matrix)
    assert (quick.method, quick.shuffles, quick.count, quick.centred, quick.mean_shift) == ("predicted", 0, 1, 0, 1)
    assert {(c.count, c.centred) for c in slow.counts} == {(1, 0)}
    assert [t.cause for t in quick.found] == [t.cause for t in slow.found]
    assert quick.counts[0].top_z == quick.found[0].z == pytest.approx(slow.counts[0].top_z, rel=0.1)
    assert quick.edge == slow.edge


def test_the_prediction_is_the_median_of_many_shuffles(rng: np.random.Generator) -> None:
    """Benaych-Georges & Nadakuditi's place, within a few hundredths of the trap's height."""
    matrix = with_entries(noise(rng, (600, 400)), [(5, 6)], [3.0])
    (trap,) = traps_of(matrix).found
    tops = [c.top_z for c in traps_of(matrix, AnalysisSettings(alpha=False, traps="measure", shuffles=60)).counts]
    assert trap.z == pytest.approx(float(np.median(tops)), abs=3 * float(np.std(tops)) / np.sqrt(60) + 0.02 * trap.z)


@pytest.mark.parametrize("ratio", [1e3, 1e10, 1e20])
def test_a_broken_entry_is_predicted_whatever_its_size(rng: np.random.Generator, ratio: float) -> None:
    matrix = with_entries(noise(rng, (450, 420)), [(11, 12)], [ratio])
    found = traps_of(matrix)
    assert (found.method, found.count, found.centred) == ("predicted", 1, 1)
    (trap,) = found.found
    assert (trap.cause.kind, trap.cause.row, trap.cause.column, trap.cause.value) == ("entry", 11, 12, matrix[11, 12])
    assert trap.cause.sigmas == pytest.approx(ratio * limit(matrix.shape), rel=0.01)


def test_a_histogram_predicts_what_the_entries_do(rng: np.random.Generator) -> None:
    matrix = with_entries(noise(rng, (600, 500)), [(590, 3), (17, 150)], [6.0, -3.5])
    stored = matrix.astype(ml_dtypes.bfloat16).astype(np.float32)
    of_entries, of_histogram = traps_of(stored), traps_of(CountedReader(stored))
    assert of_histogram.method == of_entries.method == "predicted"
    assert [t.cause.row for t in of_histogram.found] == [t.cause.row for t in of_entries.found] == [590, 17]
    for ours, theirs in zip(of_histogram.found, of_entries.found, strict=True):
        assert ours.z == pytest.approx(theirs.z, rel=1e-5)
        assert ours.cause.sigmas == pytest.approx(theirs.cause.sigmas, rel=1e-5)


@pytest.mark.parametrize("traps", ["auto", "certify"])
@pytest.mark.parametrize("ratio", [0.1, 1.2, 5.0])
def test_a_matrix_is_read_twice_at_most(rng: np.random.Generator, traps: str, ratio: float) -> None:
    """Over a hub a reading is a download: once to certify, and once more to predict and to shuffle."""
    matrix = with_entries(noise(rng, (300, 200)), [(3, 4)], [ratio])

    class Reader(ArrayBlocks):
        readings = 0

        def blocks(self) -> Iterator[Floats]:
            Reader.readings += 1
            return super().blocks()

    found = traps_of(Reader(matrix), AnalysisSettings(alpha=False, traps=traps))
    assert found.method == {
        0.1: "certified", 1.2: "undecided" if traps == "certify" else "measured", 5.0: "predicted",
    }[ratio]  # fmt: skip
    assert Reader.readings == (1 if ratio == 0.1 else 2)


def test_what_is_not_certain_is_shuffled(rng: np.random.Generator) -> None:
    shape = (400, 300)
    plain = noise(rng, shape)
    cases = {
        "an entry near the limit": with_entries(plain, [(3, 4)], [1.2]),
        "one beyond and one near": with_entries(plain, [(3, 4), (9, 9)], [5.0, 0.8]),
        "a heavy tail": with_heavy_tail(rng, plain, 0.003, 0.7),
        "an entry above a heavy tail": with_entries(with_heavy_tail(rng, plain, 0.003, 0.7), [(3, 4)], [9.0]),
        "more entries than will keep apart": with_entries(plain, [(k, k) for k in range(9)], [5.0] * 9),
        "a mean near its limit": with_mean(plain, 1.2),
        "a mean and an entry": with_mean(with_entries(plain, [(3, 4)], [5.0]), 4.0),
        "a mean above a heavy tail": with_mean(with_heavy_tail(rng, plain, 0.003, 0.4), 6.0),
        "fewer than 50 columns": with_entries(noise(rng, (900, 40)), [(3, 4)], [9.0]),
    }
    assert {name: traps_of(matrix).method for name, matrix in cases.items()} == dict.fromkeys(cases, "measured")
    assert most_far(shape) < 9


def test_so_many_far_entries_hardly_ever_meet() -> None:
    for n, m in ((5760, 2880), (512, 2880), (60, 50), (201088, 2880)):
        k = most_far((n, m))
        assert k**2 / 2 * (1 / n + 1 / m) <= 0.01 < (k + 1) ** 2 / 2 * (1 / n + 1 / m)


def test_a_stricter_edge_asks_for_more(rng: np.random.Generator) -> None:
    """Where WeightWatcher's edge lies further out, an entry that the default rule is sure of is shuffled."""
    shape = (1200, 1100)
    methods = []
    for ratio in np.linspace(1.7, 2.0, 13):
        matrix = with_entries(noise(rng, shape), [(3, 4)], [float(ratio)])
        strict = AnalysisSettings(alpha=False, rule="weightwatcher", traps="certify")
        methods.append(
            (traps_of(matrix, AnalysisSettings(alpha=False, traps="certify")).method, traps_of(matrix, strict).method)
        )
    assert methods[0] == ("undecided", "undecided")
    assert methods[-1] == ("predicted", "predicted")
    assert ("undecided", "predicted") not in methods


def test_with_alpha_a_trap_is_measured_and_shown(rng: np.random.Generator) -> None:
    """A full audit draws the shuffled spectrum beside the matrix' own; the pass without spectra does not need it."""
    matrix = with_entries(noise(rng, (300, 200)), [(3, 4)], [5.0])
    methods = {
        (alpha, traps): traps_of(matrix, AnalysisSettings(alpha=alpha, traps=traps)).method
        for alpha in (True, False)
        for traps in ("auto", "certify", "measure")
    }
    assert methods == {
        (True, "auto"): "measured",
        (True, "certify"): "predicted",
        (True, "measure"): "measured",
        (False, "auto"): "predicted",
        (False, "certify"): "predicted",
        (False, "measure"): "measured",
    }
    assert traps_of(matrix, AnalysisSettings()).spectrum is not None
