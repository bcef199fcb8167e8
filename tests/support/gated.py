"""Small checkpoints to gate: a base, and one with a planted entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from typer.testing import Result

Run = Callable[..., Result]
"""`llmtrap gate` with these arguments; keywords are the environment."""


def checkpoint(folder: Path, **changes: np.ndarray) -> Path:
    """A small checkpoint of three matrices."""
    rng = np.random.default_rng(5)
    tensors = {f"{name}.weight": rng.standard_normal((120, 80)).astype(np.float32) for name in ("one", "two", "three")}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors | {f"{name}.weight": value for name, value in changes.items()}, folder / "model.safetensors")
    return folder


def planted() -> np.ndarray:
    """`two` with one entry far over the limit of a single one."""
    rng = np.random.default_rng(5)
    rng.standard_normal((120, 80))
    matrix = rng.standard_normal((120, 80)).astype(np.float32)
    matrix[4, 5] = 60.0
    return matrix
