"""Equal eigenvalues in the fit of α, and what float32 cannot tell of a rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmtrap.spectra import analyse
from llmtrap.spectra.esd import Esd
from llmtrap.spectra.power_law import DISTINCT, PowerLawFit, fit_power_law

TIED = np.r_[np.ones(100), np.full(50, 4.0), np.full(30, 9.0), np.full(20, 16.0)]


def by_definition(values: NDArray[np.float64]) -> tuple[float, float, int]:
    """(D, α, n) of the best x_min among the distinct values but the largest, each with all values from it on."""
    tails = [np.sort(values[values >= start]) for start in np.unique(values)[:-1]]
    fits = []
    for tail in tails:
        alpha = 1 + tail.size / np.log(tail / tail[0]).sum()
        distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(tail.size) / tail.size).max()
        fits.append((float(distance), float(alpha), tail.size))
    return min(fits, key=lambda fit: fit[0])


def fitted(values: NDArray[np.float64]) -> PowerLawFit:
    fit = fit_power_law(values)
    assert fit is not None
    return fit


def test_a_run_of_equal_eigenvalues_is_tried_from_its_first() -> None:
    fit = fitted(TIED)
    assert (fit.ks, fit.alpha, fit.tail) == pytest.approx(by_definition(TIED), rel=1e-12)
    assert fit.tail == int((fit.xmin <= TIED).sum()) == 100


@given(st.lists(st.integers(1, 12), min_size=12, max_size=80).filter(lambda drawn: len(set(drawn)) > 1))
def test_the_tail_is_all_that_stands_at_x_min_and_above(drawn: list[int]) -> None:
    values = np.asarray(drawn, dtype=np.float64) ** 2
    fit = fitted(values)
    assert fit.tail == int((values >= fit.xmin).sum())
    assert (fit.ks, fit.alpha) == pytest.approx(by_definition(values)[:2], rel=1e-9)


def test_rounding_of_equal_eigenvalues_changes_nothing() -> None:
    noise = 1 + 1e-8 * np.random.default_rng(0).standard_normal(TIED.size)
    assert fitted(TIED * noise).tail == fitted(TIED).tail
    assert fitted(TIED * noise).alpha == pytest.approx(fitted(TIED).alpha, rel=1e-6)


@pytest.mark.parametrize(("gap", "runs"), [(0.9 * DISTINCT, 1), (1.1 * DISTINCT, 2)])
def test_what_counts_as_two_values(gap: float, runs: int) -> None:
    fit = fit_power_law(np.r_[np.ones(40), np.full(40, 1 + gap)])
    assert (fit is None) is (runs == 1)


def test_close_neighbours_are_not_one_value_over_any_distance() -> None:
    ladder = (1 + 0.6 * DISTINCT) ** np.arange(200.0)
    fit = fit_power_law(ladder)
    assert fit is not None
    assert fit.tail > 2


def test_an_orthogonal_matrix_has_no_tail() -> None:
    q = np.linalg.qr(np.random.default_rng(3).standard_normal((300, 200)))[0].astype(np.float32)
    esd = analyse(q).esd
    assert esd is not None
    assert esd.fit is None


def test_few_distinct_values_are_no_reliable_tail() -> None:
    assert not fitted(TIED).reliable


def crowded(middle: float, size: int = 560) -> NDArray[np.float32]:
    """A matrix half of whose eigenvalues crowd at `middle` times the largest."""
    rng = np.random.default_rng(3)
    spectrum = np.r_[np.linspace(0.01, 1, size // 2) ** -1.2 * 1e-2, np.ones(size - size // 2)]
    spectrum /= spectrum.max()
    spectrum[size // 2 :] = middle * np.exp(rng.normal(0, 0.1, size - size // 2))
    left, _ = np.linalg.qr(rng.standard_normal((700, size)))
    right, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return ((left * np.sqrt(spectrum)) @ right.T).astype(np.float32)


@pytest.mark.parametrize("middle", [0.9e-7, 1e-6, 1e-5])
def test_a_hard_rank_in_float32_is_right_or_none(middle: float) -> None:
    matrix = crowded(middle)
    esd = analyse(matrix).esd
    assert esd is not None
    squares = np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2
    truth = int((squares > 1e-7 * squares[0]).sum())
    assert esd.precision == "float32"
    assert esd.hard_rank in (truth, None)
    assert (esd.hard_rank is None) is (middle < 1e-6)


@pytest.mark.parametrize(("relative", "doubtful"), [(0.4e-7, False), (0.6e-7, True), (1.4e-7, True), (1.6e-7, False)])
def test_how_near_the_limit_float32_is_in_doubt(relative: float, doubtful: bool) -> None:
    values = np.array([relative, 1.0])
    assert (Esd(values, None, "float32").hard_rank is None) is doubtful
    assert Esd(values, None, "float64").hard_rank == 1 + (relative > 1e-7)
