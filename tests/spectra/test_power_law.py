"""α against a plain reading of Clauset, Shalizi and Newman, planted exponents, and the laws of scaling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmtrap.spectra.power_law import PowerLawFit, fit_power_law, interval_without_largest, usable_eigenvalues

Floats = NDArray[np.float64]


def clauset(values: Floats) -> tuple[float, float, float, int]:
    """α, x_min, D and n, one candidate after another, equal ones once, as the paper says it."""
    ordered = sorted(values.tolist())
    best: tuple[float, float, float, int] | None = None
    for start, xmin in enumerate(ordered[:-1]):
        if start and ordered[start - 1] == xmin:
            continue
        tail = ordered[start:]
        n = len(tail)
        spread = sum(math.log(x / xmin) for x in tail)
        if spread <= 0:
            continue
        alpha = 1 + n / spread
        distance = max(abs((1 - (x / xmin) ** (1 - alpha)) - k / n) for k, x in enumerate(tail))
        if best is None or distance < best[2]:
            best = alpha, xmin, distance, n
    assert best is not None
    return best


def pareto(rng: np.random.Generator, alpha: float, size: int, xmin: float = 1.0) -> Floats:
    """Draws of density ~ x^(−alpha) from xmin on."""
    return xmin * rng.random(size) ** (-1 / (alpha - 1))


def fit_of(values: Floats) -> PowerLawFit:
    fit = fit_power_law(values)
    assert fit is not None
    return fit


@pytest.mark.parametrize("size", [2, 3, 10, 65, 130, 300])
@pytest.mark.parametrize("law", ["pareto", "lognormal", "uniform", "marchenko-pastur"])
def test_the_plain_reading_gives_the_same(rng: np.random.Generator, law: str, size: int) -> None:
    values = {
        "pareto": lambda: pareto(rng, 2.5, size),
        "lognormal": lambda: rng.lognormal(0, 1, size),
        "uniform": lambda: rng.uniform(1, 2, size),
        "marchenko-pastur": lambda: np.linalg.eigvalsh(np.cov(rng.standard_normal((size, 3 * size)))),
    }[law]()
    fit = fit_of(values)
    alpha, xmin, distance, tail = clauset(values)
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.xmin == xmin
    assert fit.ks == pytest.approx(distance, abs=1e-12)
    assert fit.tail == tail
    assert fit.sigma == pytest.approx((alpha - 1) / math.sqrt(tail), rel=1e-9)
    assert fit.usable == size


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0, 4.5, 6.0])
def test_planted_exponents_are_found(rng: np.random.Generator, alpha: float) -> None:
    fits = [fit_of(pareto(rng, alpha, 800)) for _ in range(20)]
    assert np.mean([f.alpha for f in fits]) == pytest.approx(alpha, rel=0.05)
    # A tail of 1.5 spans so many decades that the floor now and then leaves too few of it.
    assert sum(f.reliable for f in fits) >= 18


def test_a_tail_above_a_body_is_found_where_it_begins(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.uniform(0.01, 1, 600), pareto(rng, 2.5, 400)])
    fit = fit_of(values)
    assert fit.alpha == pytest.approx(2.5, abs=4 * fit.sigma)
    assert 0.7 < fit.xmin < 3
    assert fit.tail < 600


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.floats(-300, 300), st.booleans())
def test_scaling_changes_nothing(seed: int, size: int, exponent: float, binary: bool) -> None:
    # A factor may take the square of 10^±150, the scale of eigenvalues, out of no float's range here.
    values = np.random.default_rng(seed).lognormal(0, 1, size)
    factor = 2.0 ** round(exponent) if binary else 10.0 ** (exponent / 3)
    plain, scaled = fit_of(values), fit_of(values * factor)
    assert scaled.alpha == pytest.approx(plain.alpha, rel=1e-9)
    assert scaled.tail == plain.tail
    assert scaled.xmin == pytest.approx(plain.xmin * factor, rel=1e-12)


@given(st.permutations(list(range(12))))
def test_order_changes_nothing(order: list[int]) -> None:
    values = np.array([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144], dtype=np.float64)
    assert fit_power_law(values[order]) == fit_power_law(values)


def test_the_floor_is_relative_unless_given(rng: np.random.Generator) -> None:
    values = np.concatenate([[0.0, 1e-12, 0.9e-7, 1.1e-7], rng.uniform(0.1, 0.9, 60), [1.0]])
    assert usable_eigenvalues(values).size == 62
    assert usable_eigenvalues(values * 1e-30).size == 62
    assert usable_eigenvalues(values, floor=1e-5).size == 61
    assert fit_of(values).usable == 62
    assert usable_eigenvalues(values * 1e-9, floor=1e-5).size == 0


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 5.0], [1e-9, 1.0]])
def test_nothing_to_fit(values: list[float]) -> None:
    assert fit_power_law(np.array(values)) is None


def test_ties() -> None:
    """Equal eigenvalues, as of an orthogonal block: the tail that is all one value is no candidate."""
    values = np.array([1.0] * 30 + [2.0] * 20 + [4.0] * 10)
    fit = fit_of(values)
    alpha, xmin, distance, tail = clauset(values)
    assert (fit.alpha, fit.xmin, fit.ks, fit.tail) == pytest.approx((alpha, xmin, distance, tail))
    assert fit.xmin < 4.0


def test_two_eigenvalues() -> None:
    fit = fit_of(np.array([1.0, math.e]))
    assert fit.alpha == pytest.approx(3.0)
    assert fit.tail == 2
    assert fit.reason == "fewer than 50 usable eigenvalues"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.geomspace(1, 10, 49), "fewer than 50 usable eigenvalues"),
        (np.concatenate([np.full(60, 1.0), np.geomspace(50, 60, 5)]), "fewer than 8 eigenvalues in the tail"),
        (np.concatenate([np.full(40, 1.0), np.full(40, 3.0)]), "the fit is poor (D above 0.15)"),
    ],
)
def test_an_unreliable_fit_says_why_and_claims_no_band(values: Floats, reason: str) -> None:
    fit = fit_of(values)
    assert fit.reason == reason
    assert not fit.reliable
    assert fit.band is None


@pytest.mark.parametrize(("alpha", "band"), [(1.6, "over"), (3.0, "well"), (9.0, "under")])
def test_bands(alpha: float, band: str) -> None:
    # Exact quantiles of the power law, so that nothing is left to chance.
    values = (1 - (np.arange(400) + 0.5) / 400) ** (-1 / (alpha - 1))
    fit = fit_of(values)
    assert fit.alpha == pytest.approx(alpha, rel=0.03)
    assert fit.band == band


@pytest.mark.parametrize(
    ("alpha", "band"), [(1.99, "over"), (2.0, "well"), (5.99, "well"), (6.0, "well"), (6.01, "under")]
)
def test_where_the_bands_end(alpha: float, band: str) -> None:
    assert PowerLawFit(alpha, 0.1, 1.0, 0.05, 100, 400, None, alpha, alpha).band == band
    assert PowerLawFit(alpha, 0.1, 1.0, 0.05, 100, 400, "poor", alpha, alpha).band is None


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("size", [50, 200])
def test_the_interval_covers_planted_exponents_where_sigma_does_not(alpha: float, size: int) -> None:
    rng = np.random.default_rng([size, int(10 * alpha)])
    covered = narrow = 0
    for _ in range(60):
        tail = rng.random(size) ** (-1 / (alpha - 1))
        fit = fit_power_law(np.concatenate([tail, rng.beta(3, 1.2, size)]))
        assert fit is not None
        assert 1 <= fit.low <= fit.alpha <= fit.high
        covered += fit.low <= alpha <= fit.high
        narrow += abs(fit.alpha - alpha) < fit.sigma
    # Of 60 draws at 90 %, 47 and more in 99.9 % of cases.
    assert covered >= 47
    assert covered > narrow


def test_the_interval_with_and_without_the_largest() -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([(1 - rng.random(200)) ** (-1 / 2.0), rng.beta(3, 1.2, 200), [1e4, 1e4, 1e4]])
    fit = fit_power_law(values)
    assert fit is not None
    assert interval_without_largest(values, fit, 0) == (fit.low, fit.high)
    low, high = interval_without_largest(values, fit, 3)
    assert low <= fit.low
    assert high > fit.high  # three eigenvalues far out make the tail look heavier than it is
    assert low <= 3.0 <= high
    assert interval_without_largest(values, fit, values.size) == (fit.low, fit.high)


def test_the_interval_does_not_change_with_scale() -> None:
    values = np.random.default_rng(3).pareto(1.5, 300) + 1
    one, other = fit_power_law(values), fit_power_law(1e-9 * values)
    assert one is not None
    assert other is not None
    assert (other.low, other.high) == pytest.approx((one.low, one.high))
