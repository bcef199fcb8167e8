"""Noise: the table of what random matrices give, and noise of every kind told from what has learnt."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from studies.noise.simulate import gaussian_spectrum, measured

from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse
from llmtrap.spectra.noise import noise_of

Floats = NDArray[np.floating]


def bf16(matrix: Floats) -> Floats:
    """Rounded to the nearest number of eight bits of precision (ties away from zero)."""
    bits = matrix.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).view(np.float32)


def entries(law: str, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A matrix of independent entries."""
    drawn = {
        "gaussian": lambda: rng.standard_normal(shape),
        "uniform": lambda: rng.uniform(-1, 1, shape),
        "signs": lambda: rng.choice(np.array([-1.0, 1.0]), shape),
        "truncated": lambda: np.clip(rng.standard_normal(shape), -2, 2),
        "bf16": lambda: bf16(0.02 * rng.standard_normal(shape)),
        "shifted": lambda: 0.01 + 0.02 * rng.standard_normal(shape),
        "student": lambda: rng.standard_t(8, shape),
    }[law]()
    return drawn.astype(np.float32)


def explained(matrix: Floats, **settings: object) -> MatrixAnalysis:
    found = analyse(matrix, AnalysisSettings(**settings))  # type: ignore[arg-type]
    assert found.noise is not None
    return found


def test_the_bidiagonal_model_has_the_spectrum_of_a_gaussian_matrix() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([gaussian_spectrum(90, 60, rng) for _ in range(400)])
    whole = np.array([np.linalg.svd(rng.standard_normal((90, 60)), compute_uv=False)[::-1] ** 2 for _ in range(400)])
    error = np.sqrt((drawn.var(axis=0) + whole.var(axis=0)) / 400)
    assert (np.abs(drawn.mean(axis=0) - whole.mean(axis=0)) < 5 * error).all()


@pytest.mark.parametrize(("rows", "columns"), [(80, 80), (110, 110), (160, 70), (3000, 55)])
def test_between_the_grids_shapes_the_table_is_right(rows: int, columns: int) -> None:
    found = measured(rows, columns, 100, np.random.default_rng([rows, columns]))
    noise = noise_of((columns, rows))
    assert noise is not None
    for quantiles, name in ((noise.alpha, "alpha"), (noise.stable_rank, "stable_rank")):
        assert quantiles.low < quantiles.median < quantiles.high, name
    # Of 100 draws the median of α, which varies by half of itself, is known to about 7 %.
    assert noise.alpha.median == pytest.approx(found["alpha"][1], rel=0.25)
    again = noise_of((rows, columns))
    assert again == noise
    scale = noise.stable_rank.median / found["stable_rank"][1]
    assert scale == pytest.approx(columns / (1 + (columns / rows) ** 0.5) ** 2, rel=0.01)
    deficit = (columns / rows) / np.log(columns)
    assert (1 - noise.entropy.median) / deficit == pytest.approx(found["entropy"][1], rel=0.02)
    assert columns * noise.distance > np.quantile(found["distances"], 0.99)


def test_beyond_the_grid_its_border_counts_and_small_matrices_have_no_noise() -> None:
    assert noise_of((49, 5000)) is None
    large, border = noise_of((8192, 8192)), noise_of((2048, 2048))
    assert large is not None
    assert border is not None
    assert large.alpha == border.alpha
    assert large.stable_rank.median == pytest.approx(4 * border.stable_rank.median)
    assert large.distance == pytest.approx(border.distance / 4)


@pytest.mark.parametrize("law", ["gaussian", "uniform", "signs", "truncated", "bf16", "shifted", "student"])
@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (128, 128)])
def test_noise_is_noise(law: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng([*law.encode(), *shape])
    for _ in range(3):
        found = explained(entries(law, shape, rng)).noise
        assert found is not None
        assert found.explains, (found.distance, found.limit, found.spikes, found.by_entries)


def test_noise_with_a_corrupted_entry_is_noise_with_a_trap() -> None:
    matrix = np.random.default_rng(5).standard_normal((200, 150)).astype(np.float32)
    matrix[7, 9] = 40
    found = explained(matrix)
    assert found.traps is not None
    assert found.traps.count == 1
    assert found.noise is not None
    assert (found.noise.spikes, found.noise.explains) == (1, True)
    # Nobody has looked for traps: what lies beyond the edge may be one.
    assert explained(matrix, traps="certify").noise.explains  # type: ignore[union-attr]


@pytest.mark.parametrize("rank", [1, 3])
def test_what_has_learnt_a_direction_is_not_noise(rank: int) -> None:
    rng = np.random.default_rng(rank)
    learnt = 1.2 * rng.standard_normal((200, rank)) @ rng.standard_normal((rank, 150)) / 150**0.5
    found = explained((rng.standard_normal((200, 150)) + 2 * learnt).astype(np.float32)).noise
    assert found is not None
    assert found.spikes == rank
    assert not found.explains


def test_a_bulk_of_another_form_is_not_noise() -> None:
    rng = np.random.default_rng(2)
    uneven = rng.standard_normal((200, 150)) * np.exp(0.4 * rng.standard_normal(150))
    found = explained(uneven.astype(np.float32)).noise
    assert found is not None
    assert found.distance > found.limit
    assert not found.explains
