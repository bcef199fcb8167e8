"""Eigenvalues against singular values in float64, on matrices that single precision finds hard."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from llmtrap.spectra import esd
from llmtrap.spectra.backends import NumpyBackend
from llmtrap.spectra.esd import Esd, compute_esd, log_histogram

Floats = NDArray[np.floating]


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let single precision begin at a side that a test can afford."""
    monkeypatch.setattr(esd, "DOUBLE_UP_TO", 256)


def esd_of(matrix: Floats, rows: int | None = None, **options: float) -> Esd:
    step = rows or len(matrix)
    blocks = [matrix[k : k + step] for k in range(0, len(matrix), step)]
    return compute_esd(lambda: blocks, matrix.shape, NumpyBackend(), **options)  # type: ignore[arg-type]


def by_svd(matrix: Floats) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return np.sort(values) ** 2


def with_spectrum(rng: np.random.Generator, shape: tuple[int, int], values: NDArray[np.float64]) -> Floats:
    """A float32 matrix with these singular values in random directions."""
    side = values.size
    left = np.linalg.qr(rng.standard_normal((shape[0], side)))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], side)))[0]
    return np.asarray((left * values) @ right.T, dtype=np.float32)


@pytest.mark.parametrize(
    "shape", [(300, 200), (200, 300), (290, 270), (270, 290), (5000, 12), (12, 5000), (1, 9), (9, 1)]
)
@pytest.mark.usefixtures("single")
def test_squared_singular_values(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    matrix = rng.standard_t(4, shape).astype(np.float32)
    found, expected = esd_of(matrix), by_svd(matrix)
    assert found.eigenvalues.size == min(shape)
    assert (np.diff(found.eigenvalues) >= 0).all()
    np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-6 * expected[-1], rtol=2e-5)
    assert found.total == pytest.approx(float((matrix.astype(np.float64) ** 2).sum()), rel=1e-6)
    # A float32 eigensolver is backward stable to some tens of units in the last place; how many depends on the CPU.
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 64, 499])
def test_blocks_of_any_height_give_the_whole(rng: np.random.Generator, rows: int) -> None:
    matrix = rng.standard_normal((500, 60)).astype(np.float32)
    np.testing.assert_allclose(esd_of(matrix, rows).eigenvalues, esd_of(matrix).eigenvalues, rtol=1e-12)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("name", ["gaussian", "power-law", "condition-1e3", "spike", "deficient"])
def test_alpha_is_that_of_a_float64_decomposition(rng: np.random.Generator, name: str) -> None:
    side = 300
    shape = (side + 60, side)
    values = {
        "gaussian": lambda: np.sqrt(np.linalg.eigvalsh(np.cov(rng.standard_normal((side, 3 * side))))),
        "power-law": lambda: rng.random(side) ** -0.5,
        "condition-1e3": lambda: np.geomspace(1e-3, 1, side),
        "spike": lambda: np.concatenate([rng.uniform(1, 2, side - 1), [3e3]]),
        "deficient": lambda: rng.uniform(1, 9, side // 2),
    }[name]()
    matrix = with_spectrum(rng, shape, values)
    found = esd_of(matrix)
    reference = esd_of(matrix.astype(np.float64), double=True)
    assert found.fit is not None
    assert reference.fit is not None
    assert found.fit.alpha == pytest.approx(reference.fit.alpha, rel=1e-4)
    assert found.fit.tail == reference.fit.tail
    assert reference.eigenvalues[-1] == pytest.approx(float(by_svd(matrix)[-1]), rel=1e-12)


@pytest.mark.usefixtures("single")
def test_precision_follows_what_the_spectrum_needs(rng: np.random.Generator) -> None:
    small = rng.standard_normal((300, 256)).astype(np.float32)
    large = rng.standard_normal((400, 257)).astype(np.float32)
    half_rank = with_spectrum(rng, (300, 300), rng.uniform(1, 2, 150))
    wide_range = with_spectrum(rng, (300, 300), np.geomspace(1e-4, 1, 300))
    assert esd_of(small).precision == "float64"
    assert esd_of(large).precision == "float32"
    assert esd_of(large, double=True).precision == "float64"
    assert esd_of(half_rank).precision == "float64"
    assert esd_of(wide_range).precision == "float64"


@pytest.mark.parametrize("rank", [1, 20, 99])
def test_rank_deficiency_is_seen(rng: np.random.Generator, rank: int) -> None:
    # Small integers, so that the product has this rank to the last bit.
    matrix = (rng.integers(-9, 9, (140, rank)) @ rng.integers(-9, 9, (rank, 100))).astype(np.float32)
    found = esd_of(matrix)
    assert found.hard_rank == rank
    assert found.rank_deficient
    assert not esd_of(matrix + rng.standard_normal((140, 100)).astype(np.float32)).rank_deficient


def test_entropy_runs_from_rank_one_to_flat(rng: np.random.Generator) -> None:
    assert esd_of(np.eye(50, dtype=np.float32)).entropy == pytest.approx(1.0)
    one = esd_of(np.outer(np.ones(60), np.arange(1.0, 41)).astype(np.float32)).entropy
    assert one == pytest.approx(0.0, abs=1e-12)
    assert math.copysign(1, one) == 1
    assert esd_of(np.zeros((5, 4), dtype=np.float32)).entropy == 0.0


@pytest.mark.parametrize("exponent", [-42, -30, 30, 38])
def test_scales_whose_squares_leave_float32(rng: np.random.Generator, exponent: int) -> None:
    plain = rng.uniform(-1, 1, (90, 60)).astype(np.float32)
    factor = 10.0**exponent
    matrix = (plain * factor).astype(np.float32)
    scale = 2.0 ** -round(math.log2(float(np.abs(matrix).max())))
    found = esd_of(matrix, scale=scale)
    np.testing.assert_allclose(found.eigenvalues, by_svd(matrix), rtol=1e-6)


def test_the_histogram_holds_every_eigenvalue_above_the_floor(rng: np.random.Generator) -> None:
    values = np.concatenate([[0.0, 1e-9], rng.lognormal(0, 1, 300), [50.0]])
    histogram = log_histogram(values)
    assert histogram is not None
    assert sum(histogram.counts) == 301
    assert len(histogram.edges) == len(histogram.counts) + 1 == 65
    assert histogram.edges[0] < values[2:].min() < values.max() < histogram.edges[-1]
    assert (np.diff(histogram.edges) > 0).all()


def test_the_histogram_of_one_value_and_of_none() -> None:
    flat = log_histogram(np.full(7, 3.0))
    assert flat is not None
    assert sum(flat.counts) == 7
    assert log_histogram(np.zeros(5)) is None
    assert log_histogram(np.zeros(0)) is None
