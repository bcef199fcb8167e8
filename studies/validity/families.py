"""The certificate against families of entries that are known to be hard: each at the border of what is certified.

Entries of one size on a Gaussian bulk or on signs, two values and zero (sparse signs), Gaussian scale mixtures, and
Student's t cut off at the entry limit; one parameter of each is swept, another is pushed until the certificate is
withheld.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.traps import edge_z
from studies.validity.soundness import ATOMS, FARTHEST, NEAREST, certified, entries_of, top_z
from studies.validity.work import generator

Floats = NDArray[np.float32]
FAMILIES = (
    "one size on a Gaussian",
    "one size on signs",
    "sparse signs",
    "scale mixture",
    "cut-off Student t",
    "one-sided sparse",
)
SWEEP = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


def border(family: str, rows: int, columns: int, shuffles: int) -> dict[str, Any]:
    """Sweep one parameter, push the other to the border, and shuffle what stands there."""
    shape, all_z, matrices = (rows, columns), [], 0
    for sweep in SWEEP:
        best = _at_border(family, sweep, shape)
        if best is not None:
            matrices += 1
            all_z.append(top_z(best, shuffles, f"{family} {sweep}"))
    z = np.concatenate(all_z) if all_z else np.zeros(0)
    return {
        "family": family, "shape": [rows, columns], "matrices": matrices, "shuffles": int(z.size),
        "largest_z": float(z.max()) if z.size else None, "traps": int((z > edge_z("tracy-widom", shape)).sum()),
        "worst_mean_z": max((float(part.mean()) for part in all_z), default=None),
    }  # fmt: skip


def _at_border(family: str, sweep: float, shape: tuple[int, int]) -> Floats | None:
    if family.startswith("one size"):
        x = np.zeros(3 * ATOMS + 1)
        limit = float(shape[0] * shape[1]) ** 0.25
        # The distance from 0.15 limits to the farthest; half of them on each side, no mean.
        distance = (0.15 + (FARTHEST - 0.15) * sweep) * limit
        x[0], x[ATOMS] = np.log(distance / NEAREST) / np.log(FARTHEST * limit / NEAREST), 1.0
        x[2 * ATOMS :] = 0.5
        return entries_of(x, shape, "gaussian" if family.endswith("Gaussian") else "signs")
    # Tamest first: the last push that is certified is the border.
    best = None
    for push in np.linspace(0, 1, 13):
        matrix = _member(family, sweep, float(push), shape)
        if certified(matrix):
            best = matrix
    return best


def _member(family: str, sweep: float, push: float, shape: tuple[int, int]) -> Floats:
    rng = generator("family", family, sweep, shape)
    size = shape[0] * shape[1]
    limit = float(size) ** 0.25
    if family in ("sparse signs", "one-sided sparse"):
        # From dense (tame) to as few as e < 0.25 bears; `sweep` is what the zeros hold of a Gaussian instead.
        share = np.exp(np.log(0.9) * (1 - push) + np.log(2 / limit**2) * push)
        kept = rng.random(shape) < share
        signs = rng.choice([-1.0, 1.0], shape) if family == "sparse signs" else np.ones(shape)
        ground = sweep * np.sqrt(share) * rng.standard_normal(shape)
        entries = np.where(kept, signs, ground)
        return np.asarray(entries - entries.mean(), dtype=np.float32)
    if family == "scale mixture":
        # A share of entries is 1 to 8 times as large as the others.
        wide = rng.random(shape) < 0.3 ** (1 + 6 * sweep)
        return np.asarray(rng.standard_normal(shape) * np.where(wide, 1 + 7 * push, 1.0), dtype=np.float32)
    freedom = 12 * (1 - push) + 1.5 * push
    entries = rng.standard_t(freedom, shape)
    entries /= entries.std()
    cut = 0.49 * limit * (0.4 + 0.6 * sweep)
    for _ in range(3):
        entries = np.clip(entries / entries.std(), -cut, cut)
    return entries.astype(np.float32)


def cells(quick: bool) -> list[dict[str, Any]]:
    """Every family on every shape."""
    shapes = (((64, 64), 200), ((128, 128), 100), ((512, 128), 50), ((256, 256), 30), ((512, 512), 5),
              ((4480, 64), 6), ((1024, 1024), 2))  # fmt: skip
    return [
        {"family": family, "rows": shape[0], "columns": shape[1], "shuffles": 5 if quick else shuffles}
        for shape, shuffles in shapes
        if not quick or min(shape) <= 64
        for family in FAMILIES
        # The other families have to be drawn again for each push, which is dear on a large matrix.
        if min(shape) <= 512 or family.startswith("one size")
    ]
