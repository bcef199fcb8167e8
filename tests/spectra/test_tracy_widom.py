"""The edge law against the Tracy–Widom distribution computed from its determinant, and against published quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special

from llmtrap.spectra.tracy_widom import EdgeLaw, density, quantile_of_survival, survival


def exact_survival(z: float, nodes: int = 60, reach: float = 16.0) -> float:
    """1 − F₁(z) with F₁ the Fredholm determinant of ½Ai((x + y)/2 + z) on the half line (Ferrari and Spohn 2005)."""
    x, weights = np.polynomial.legendre.leggauss(nodes)
    x, roots = (x + 1) * reach / 2, np.sqrt(weights * reach / 2)
    kernel = special.airy(z + (x[:, None] + x[None, :]) / 2)[0] / 2
    return float(1 - np.linalg.det(np.eye(nodes) - roots[:, None] * kernel * roots[None, :]))


@pytest.mark.parametrize(("level", "quantile"), [(0.9, 0.4501), (0.95, 0.9793), (0.99, 2.0234), (0.999, 3.2724)])
def test_published_quantiles(level: float, quantile: float) -> None:
    assert exact_survival(quantile) == pytest.approx(1 - level, rel=2e-3)
    assert quantile_of_survival(1 - level) == pytest.approx(quantile, abs=0.03)


@pytest.mark.parametrize("z", [-3.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5])
def test_the_approximation_is_within_an_eighth_of_the_law(z: float) -> None:
    assert survival(z) == pytest.approx(exact_survival(z), rel=0.125)


def test_the_edge_of_the_default_rule() -> None:
    edge = quantile_of_survival(1e-6)
    assert edge == pytest.approx(6.2086, abs=1e-4)
    assert exact_survival(edge) == pytest.approx(1.1e-6, rel=0.05)


@pytest.mark.parametrize("p", [0.5, 1e-2, 1e-6, 1e-9])
def test_the_quantile_undoes_the_survival(p: float) -> None:
    assert survival(quantile_of_survival(p)) == pytest.approx(p, rel=1e-8)


def test_the_density_is_the_slope_of_the_survival() -> None:
    for low, high in [(-4, -2), (-2, 0), (0, 2), (2, 6)]:
        area, _ = integrate.quad(density, low, high)
        assert area == pytest.approx(survival(low) - survival(high), rel=1e-6)
    assert density(-9.9) == 0.0
    assert survival(-9.9) == 1.0


def test_johnstones_centre_and_scale() -> None:
    law = EdgeLaw.of(100, 400)
    left, right = math.sqrt(399), math.sqrt(100)
    assert law == EdgeLaw((left + right) ** 2, (left + right) * (1 / left + 1 / right) ** (1 / 3))
    assert law == EdgeLaw.of(400, 100)
    assert law.z(law.eigenvalue(3.25)) == pytest.approx(3.25)


@pytest.mark.parametrize("shape", [(120, 60), (80, 80), (600, 50)])
def test_white_noise_follows_the_law(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    law, draws = EdgeLaw.of(*shape), 300
    z = []
    for _ in range(draws):
        matrix = rng.standard_normal(shape)
        z.append(law.z(float(np.linalg.eigvalsh(matrix.T @ matrix)[-1])))
    for level in (0.1, 0.5, 0.9):
        share = float(np.mean([survival(value) > level for value in z]))
        assert share == pytest.approx(1 - level, abs=5 * math.sqrt(level * (1 - level) / draws) + 0.02)
