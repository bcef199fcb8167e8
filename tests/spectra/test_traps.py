"""The trap rule: its edges, what shuffles of noise show, and what does not depend on how the matrix is held."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from tests.support.planting import limit, noise, with_entries, with_heavy_tail, with_mean

from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.certificate import Bulk
from llmtrap.spectra.entries import CountedEntries, HeldEntries, standardise
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import TrapSearch, count_beyond, edge_z, gram_of, measure_traps, shuffle_once

MEASURE = AnalysisSettings(alpha=False, traps="measure")


def search(rule: str = "tracy-widom", shuffles: int = 5) -> TrapSearch:
    return TrapSearch("m", 0, rule, shuffles, "never")


@pytest.mark.parametrize("shape", [(512, 512), (2048, 512), (5760, 2880), (4000, 60)])
def test_weightwatchers_edge_is_its_published_formula(shape: tuple[int, int]) -> None:
    """Eigenvalues of RᵀR/N at variance 1: λ₊ + √(λ₊^⅔ · M^(−⅔)/√Q)."""
    n, m = shape
    q = n / m
    upper = (1 + 1 / math.sqrt(q)) ** 2
    expected = n * (upper + math.sqrt(1 / math.sqrt(q) * upper ** (2 / 3) * m ** (-2 / 3)))
    law = EdgeLaw.of(n, m)
    assert law.eigenvalue(edge_z("weightwatcher", shape)) == pytest.approx(expected)
    assert edge_z("weightwatcher", shape) == edge_z("weightwatcher", shape[::-1])


def test_weightwatchers_rule_is_the_stricter_on_large_matrices() -> None:
    assert edge_z("weightwatcher", (512, 512)) == pytest.approx(5, abs=1)
    assert edge_z("weightwatcher", (5760, 2880)) == pytest.approx(12, abs=1)
    assert edge_z("tracy-widom", (512, 512)) == edge_z("tracy-widom", (5760, 2880)) == pytest.approx(6.2086, abs=1e-3)


def test_weightwatchers_margin_decides_near_its_edge(rng: np.random.Generator) -> None:
    matrix = with_entries(noise(rng, (600, 600)), [(3, 4)], [1.55])
    default = analyse(matrix, MEASURE).traps
    strict = analyse(matrix, AnalysisSettings(alpha=False, traps="measure", rule="weightwatcher")).traps
    assert default is not None
    assert strict is not None
    assert [c.top_z for c in default.counts] == [c.top_z for c in strict.counts]
    for analysis in (default, strict):
        z = edge_z(analysis.rule, (600, 600))
        assert [c.count for c in analysis.counts] == [int(c.top_z > z) for c in analysis.counts]


@pytest.mark.parametrize(("law", "shapes", "draws"), [
    ("gaussian", [(64, 64), (100, 50), (128, 64), (70, 60)], 500),
    ("uniform", [(64, 64), (200, 50)], 250),
])  # fmt: skip
def test_noise_has_no_traps(rng: np.random.Generator, law: str, shapes: list[tuple[int, int]], draws: int) -> None:
    draw = rng.standard_normal if law == "gaussian" else lambda size: rng.uniform(-1, 1, size)
    for shape in shapes:
        for k in range(draws):
            matrix = np.asarray(draw(shape), dtype=np.float32)
            traps = analyse(matrix, MEASURE, matrix_id=str(k)).traps
            assert traps is not None
            assert traps.method == "measured"
            assert traps.counts[0].count == traps.counts[0].centred == 0
            assert traps.found == ()


def test_a_certified_matrix_has_no_measured_trap(rng: np.random.Generator) -> None:
    certified = 0
    for k in range(150):
        shape = [(80, 80), (160, 90), (400, 70), (130, 128)][k % 4]
        matrix = noise(rng, shape)
        kind = k % 5
        if kind == 1:
            matrix = with_entries(matrix, [(0, 0), (1, 0)], [0.49, -0.49])
        if kind == 2:
            matrix = with_mean(matrix, 0.49)
        if kind == 3:
            matrix = with_heavy_tail(rng, matrix, 0.01, 0.3)
        if kind == 4:
            matrix = np.asarray(rng.standard_t(6, shape), dtype=np.float32)
        traps = analyse(matrix, MEASURE, matrix_id=str(k)).traps
        assert traps is not None
        if traps.certificate.certified:
            certified += 1
            assert not any(c.count or c.centred for c in traps.counts)
    assert certified > 50


def test_auto_shuffles_only_what_is_not_certified(rng: np.random.Generator) -> None:
    plain = noise(rng, (120, 90))
    planted = with_entries(plain, [(7, 8)], [2.0])
    auto = AnalysisSettings(alpha=False)
    certify = AnalysisSettings(alpha=False, traps="certify")
    methods = [analyse(w, s).traps.method for w in (plain, planted) for s in (auto, certify, MEASURE)]  # type: ignore[union-attr]
    assert methods == ["certified", "certified", "measured", "measured", "undecided", "measured"]


def test_far_from_the_edge_one_shuffle_is_enough_near_it_all_are_drawn_and_25_where_they_disagree(
    rng: np.random.Generator,
) -> None:
    settings = AnalysisSettings(alpha=False, traps="measure", shuffles=7)
    drawn = {}
    for limits in (0.0, 1.2, 1.35):
        entries = ([(5, 6)], [limits]) if limits else ([], [])
        traps = analyse(with_entries(noise(rng, (300, 200)), *entries), settings).traps
        assert traps is not None
        drawn[limits] = [count.count for count in traps.counts]
        assert len({count.top_z for count in traps.counts}) == len(traps.counts)
    assert drawn[0.0] == [0]
    assert drawn[1.2] == [0] * 7
    assert len(drawn[1.35]) == 25
    assert set(drawn[1.35]) == {0, 1}


def test_the_median_is_the_lower_one(rng: np.random.Generator) -> None:
    matrix = with_entries(noise(rng, (200, 200)), [(5, 6)], [1.3])
    counts = []
    for number in (1, 2, 3, 4, 6):
        traps = analyse(matrix, AnalysisSettings(alpha=False, traps="measure", shuffles=number)).traps
        assert traps is not None
        ordered = sorted(c.count for c in traps.counts)
        assert traps.count == ordered[(len(ordered) - 1) // 2]
        counts.append(tuple(c.count for c in traps.counts))
    assert all(longer[: len(shorter)] == shorter for shorter, longer in itertools.pairwise(counts))


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_a_histogram_and_held_entries_measure_alike(rng: np.random.Generator, mean: float) -> None:
    """Both routes draw from one law: z of the same matrix differs by no more than shuffles do."""
    matrix = np.round(rng.standard_t(5, (300, 150)) * 4) / 4
    matrix[0, 0] = 60
    bulk = Bulk(mean, 1.7)
    standard = standardise(matrix.astype(np.float32), bulk)
    values, counts = np.unique(standard.astype(np.float64), return_counts=True)
    largest = float(np.abs(standard).max())
    held = HeldEntries(standard, matrix.shape, largest)
    counted = CountedEntries(values, counts, matrix.shape, largest)
    one = measure_traps(held, bulk, search(shuffles=30), NumpyBackend())
    two = measure_traps(counted, bulk, search(shuffles=30), NumpyBackend())
    z_one, z_two = np.array([c.top_z for c in one.counts]), np.array([c.top_z for c in two.counts])
    assert len(one.counts) == len(two.counts) == 30
    assert abs(z_one.mean() - z_two.mean()) < 5 * math.hypot(z_one.std(), z_two.std()) / math.sqrt(30)


def test_the_mean_comes_back_as_a_rank_two_change(rng: np.random.Generator) -> None:
    """The Gram matrix with the mean in place is that of the uncentred shuffle."""
    matrix = noise(rng, (90, 60), 1.0) + np.float32(0.3)
    bulk = Bulk(0.3, 1.0)
    entries = HeldEntries(standardise(matrix, bulk), (90, 60), 5.0)
    found = shuffle_once(entries, bulk, search(), 0, 300.0, NumpyBackend())
    (shuffle,) = entries.shuffled_blocks(search().generator(0))
    expected = np.linalg.eigvalsh((shuffle + 0.3).T.astype(np.float64) @ (shuffle + 0.3))[::-1]
    assert found.count.top_z == pytest.approx(EdgeLaw.of(90, 60).z(float(expected[0])), abs=1e-3)


def test_counting_finds_what_a_full_solve_finds(rng: np.random.Generator) -> None:
    """Above 400 columns the top eigenvalue is iterated and the number beyond the edge is counted: none forgotten."""
    matrix = with_entries(
        noise(rng, (500, 420), 1.0), [(k, 3 * k) for k in range(20)], [1.5 + k / 10 for k in range(20)]
    )
    backend = NumpyBackend()
    gram, _ = gram_of(iter([matrix]), 420, backend)
    expected = np.linalg.eigvalsh(matrix.T.astype(np.float64) @ matrix)[::-1]
    edge = EdgeLaw.of(500, 420).eigenvalue(6.2)
    beyond = int((expected > edge).sum())
    assert beyond >= 18
    count, top = count_beyond(backend, gram, edge, search().start_vector(420))
    assert count == beyond
    assert top == pytest.approx(float(expected[0]), rel=1e-5)


@pytest.mark.parametrize("ratio", [30, 1e3, 1e5, 1e7, 1e20])
def test_one_huge_entry_is_one_trap_whatever_its_size(rng: np.random.Generator, ratio: float) -> None:
    matrix = with_entries(noise(rng, (450, 420)), [(11, 12)], [ratio])
    traps = analyse(matrix, MEASURE).traps
    assert traps is not None
    assert [(c.count, c.centred) for c in traps.counts] == [(1, 1)] * 5
    (trap,) = traps.found
    assert (trap.cause.kind, trap.cause.row, trap.cause.column) == ("entry", 11, 12)
    assert trap.cause.value == matrix[11, 12]
    assert trap.cause.sigmas == pytest.approx(ratio * limit(matrix.shape), rel=0.01)


@pytest.mark.parametrize("ratio", [3, 50, 1e4, 1e6, 1e9])
def test_a_huge_mean_is_one_trap_whatever_its_size(rng: np.random.Generator, ratio: float) -> None:
    matrix = rng.standard_normal((300, 200))
    matrix += ratio / limit(matrix.shape)
    traps = analyse(matrix, MEASURE).traps
    assert traps is not None
    assert [(c.count, c.centred, c.mean_shift) for c in traps.counts] == [(1, 0, 1)] * 5
    assert [t.cause.kind for t in traps.found] == ["mean_shift"]


def test_strength_is_the_eigenvalue_over_the_edge_of_the_bulk(rng: np.random.Generator) -> None:
    matrix = with_entries(noise(rng, (300, 200)), [(1, 2)], [2.5])
    traps = analyse(matrix, MEASURE).traps
    assert traps is not None
    law, (trap,) = EdgeLaw.of(300, 200), traps.found
    assert trap.eigenvalue == pytest.approx(trap.strength * law.centre * traps.bulk.variance)
    assert trap.z == pytest.approx(law.z(trap.eigenvalue / traps.bulk.variance))
    assert trap.z == pytest.approx(traps.counts[0].top_z, rel=1e-3)
    assert traps.edge == pytest.approx(law.eigenvalue(edge_z("tracy-widom", (300, 200))) * traps.bulk.variance)


def test_the_whole_shuffled_spectrum_is_kept_where_traps_are_measured(rng: np.random.Generator) -> None:
    matrix = noise(rng, (240, 120))
    traps = analyse(matrix, MEASURE).traps
    assert traps is not None
    assert traps.spectrum is not None
    assert traps.bulk_fit is not None
    assert traps.spectrum.sum() == pytest.approx(float((matrix.astype(np.float64) ** 2).sum()), rel=1e-5)
    assert traps.spectrum.size == 120
    assert traps.bulk_fit.ks < 0.05
    assert traps.bulk_fit.p_value > 0.9
