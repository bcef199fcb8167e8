"""Training runs as folders of checkpoints: one entry of one matrix grows, another drifts, the rest stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support.edits import edit
from tests.support.planting import Floats, with_entries
from tests.support.small_checkpoint import write_small

GROWING, DRIFTING = "layers.3.mlp.down", "layers.5.mlp.gate"
PLACE = (7, 11)


def write_run(folder: Path, checkpoints: int, *, layers: int = 8, scale: int = 3, by: float = 0.6) -> list[Path]:
    """Checkpoints `checkpoint-100`, `checkpoint-200`, …: at the k-th the entry is k · `by` times the entry limit."""
    return [write_step(folder, k, layers=layers, scale=scale, by=by) for k in range(1, checkpoints + 1)]


def write_step(folder: Path, k: int, *, layers: int = 8, scale: int = 3, by: float = 0.6, name: str = "") -> Path:
    """One checkpoint of the run."""
    place = write_small(folder / (name or f"checkpoint-{100 * k}"), layers=layers, scale=scale)

    def drift(matrix: Floats) -> Floats:
        return np.asarray(matrix + 0.001 * k * np.random.default_rng(k).standard_normal(matrix.shape), np.float32)

    edit(place, "model.layers.3.mlp.down_proj.weight", lambda matrix: with_entries(matrix, [PLACE], [by * k]))
    edit(place, "model.layers.5.mlp.gate_proj.weight", drift)
    return place
