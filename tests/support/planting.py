"""Matrices and small checkpoints with something planted at a known strength, for tests of what is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.support.edits import edit
from tests.support.small_checkpoint import write_small

Floats = NDArray[np.float32]


def noise(rng: np.random.Generator, shape: tuple[int, int], deviation: float = 0.02) -> Floats:
    """Gaussian entries of a weight's usual size."""
    return np.asarray(rng.standard_normal(shape) * deviation, dtype=np.float32)


def limit(shape: tuple[int, int]) -> float:
    """How many deviations one entry needs to separate: (NM)^¼."""
    return float(np.sqrt(np.sqrt(shape[0] * shape[1])))


def with_entries(matrix: Floats, places: list[tuple[int, int]], ratios: list[float]) -> Floats:
    """The matrix with entries set to these multiples of the entry limit, in units of its deviation."""
    planted = matrix.copy()
    for place, ratio in zip(places, ratios, strict=True):
        planted[place] = ratio * limit(matrix.shape) * float(matrix.std())
    return planted


def with_mean(matrix: Floats, ratio: float) -> Floats:
    """The matrix shifted by this multiple of the mean's limit, s(NM)^(−¼)."""
    shift = ratio * float(matrix.std()) / limit(matrix.shape) - float(matrix.mean())
    return np.asarray(matrix + np.float32(shift), dtype=np.float32)


def with_heavy_tail(rng: np.random.Generator, matrix: Floats, share: float, ratio: float) -> Floats:
    """The matrix with a share of its entries, at random places and of random sign, set this far out."""
    planted = matrix.copy()
    flat = planted.reshape(-1)
    places = rng.choice(flat.size, round(share * flat.size), replace=False)
    flat[places] = rng.choice([-1, 1], places.size) * ratio * limit(matrix.shape) * float(matrix.std())
    return planted


def write_planted(folder: Path) -> Path:
    """Write a small Llama of noise but for two matrices with a trap that is predicted and one with two that are not.

    `layers.0.mlp.down` has one entry far beyond the limit, `layers.1.mlp.gate` a mean; `layers.1.attention.q` has two
    such entries: too many at its size, where shuffles often put them into one row.
    """
    write_small(folder, scale=2)
    plant = {
        "0.mlp.down_proj": lambda matrix: with_entries(matrix, [(7, 11)], [6.0]),
        "1.mlp.gate_proj": lambda matrix: with_mean(matrix, 6.0),
        "1.self_attn.q_proj": lambda matrix: with_entries(matrix, [(3, 5), (40, 70)], [6.0, 7.0]),
    }
    for name, change in plant.items():
        edit(folder, f"model.layers.{name}.weight", change)
    return folder
