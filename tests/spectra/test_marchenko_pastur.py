"""The Marchenko–Pastur law: its closed distribution function against the integral of its density, and spectra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from llmtrap.spectra.marchenko_pastur import BulkFit, MarchenkoPastur, compare_with_law


@pytest.mark.parametrize("aspect", [1.0, 0.999, 0.5, 0.1, 1 / 70])
@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_the_distribution_function_is_the_integral_of_the_density(aspect: float, variance: float) -> None:
    law = MarchenkoPastur(variance, aspect)
    for part in (0.05, 0.3, 0.7, 0.95):
        x = law.lower + part * (law.upper - law.lower)
        # With x = u² the square's density loses its pole at 0.
        area, _ = integrate.quad(
            lambda u: 2 * u * float(law.density(np.array([u * u]))[0]), np.sqrt(law.lower), np.sqrt(x), limit=200
        )
        assert float(law.cdf(np.array([x]))[0]) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("aspect", [1.0, 0.5, 0.01])
def test_all_of_it_lies_between_the_edges(aspect: float) -> None:
    law = MarchenkoPastur(2.0, aspect)
    outside = np.array([-1.0, 0.0, law.lower, law.upper, law.upper + 1])
    assert law.cdf(outside).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert law.density(np.array([law.lower - 1e-9, law.upper + 1e-9])).tolist() == [0.0, 0.0]
    assert (np.diff(law.cdf(np.linspace(law.lower, law.upper, 500))) >= 0).all()


def test_white_noise_fits_and_another_variance_does_not(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((400, 200))
    values = np.linalg.eigvalsh(matrix.T @ matrix) / 400
    good = compare_with_law(values, MarchenkoPastur(1.0, 0.5))
    poor = compare_with_law(values, MarchenkoPastur(1.5, 0.5))
    assert good.ks < 0.02
    assert good.p_value > 0.99
    assert poor.p_value < 1e-3


def test_the_distance_is_kolmogorov_and_smirnovs(rng: np.random.Generator) -> None:
    law = MarchenkoPastur(1.0, 0.4)
    values = rng.uniform(law.lower, law.upper, 60)
    reference = stats.kstest(values, law.cdf)
    found = compare_with_law(values, law)
    assert found.ks == pytest.approx(reference.statistic)
    assert found.p_value == pytest.approx(reference.pvalue)


def test_an_empty_bulk_fits_nothing() -> None:
    assert compare_with_law(np.zeros(0), MarchenkoPastur(1.0, 0.5)) == BulkFit(1.0, 0.0)
