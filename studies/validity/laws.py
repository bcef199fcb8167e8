"""Entry distributions: what the weights of a matrix without traps, or with heavy tails, may look like."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]


def _gaussian(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32)


def _uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.random(shape, dtype=np.float32) - np.float32(0.5)


def _laplace(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    size = rng.standard_exponential(shape, dtype=np.float32)
    return np.where(rng.random(shape, dtype=np.float32) < 0.5, size, -size)


def _student(freedom: int) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        spread = rng.standard_gamma(freedom / 2, shape, dtype=np.float32) * np.float32(2 / freedom)
        return np.asarray(rng.standard_normal(shape, dtype=np.float32) / np.sqrt(spread), dtype=np.float32)

    return draw


def _uneven(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Gaussian entries whose rows and columns differ in size, as those of a trained layer do."""
    rows = np.exp(0.3 * rng.standard_normal((shape[0], 1), dtype=np.float32))
    columns = np.exp(0.3 * rng.standard_normal((1, shape[1]), dtype=np.float32))
    return np.asarray(_gaussian(rng, shape) * rows * columns, dtype=np.float32)


def _mxfp4(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Uneven Gaussian rows in blocks of 32 with a shared power-of-two scale and 4-bit floats (OCP MX 1.0)."""
    blocks = _uneven(rng, shape).reshape(-1, 32)
    scale = np.exp2(np.floor(np.log2(np.abs(blocks).max(axis=1, keepdims=True))) - 2)
    rounded = (blocks / scale).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale
    return np.asarray(rounded.reshape(shape), dtype=np.float32)


def _fp8(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Uneven Gaussian rows in 8-bit floats (E4M3) with a scale for each run of 32."""
    blocks = _uneven(rng, shape).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 448
    rounded = (blocks / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    return np.asarray(rounded.reshape(shape), dtype=np.float32)


def _sparse(share: float) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        kept = rng.random(shape, dtype=np.float32) < share
        return np.asarray(_gaussian(rng, shape) * kept, dtype=np.float32)

    return draw


LAWS: dict[str, Draw] = {
    "Gaussian": _gaussian,
    "uniform": _uniform,
    "Laplace": _laplace,
    "Student t, 12 degrees": _student(12),
    "Student t, 8 degrees": _student(8),
    "Student t, 6 degrees": _student(6),
    "Student t, 5 degrees": _student(5),
    "Student t, 4 degrees": _student(4),
    "MXFP4, uneven rows and columns": _mxfp4,
    "FP8, uneven rows and columns": _fp8,
    "sparse, 30 % kept": _sparse(0.3),
    "sparse, 5 % kept": _sparse(0.05),
}
# Their entries are not exchangeable before the shuffle, so it has to be drawn.
STRUCTURED = frozenset({"MXFP4, uneven rows and columns", "FP8, uneven rows and columns"})
