"""What a trap adds to a matrix: its component of the shuffled matrix, taken back to where the entries came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.ablation.components import Shuffle, first_shuffle
from llmtrap.calibrate.measure_checkpoint import analyse_matrix, matrix_id
from llmtrap.spectra.certificate import entry_limit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Component:
    """Part of a matrix that traps of its first shuffle account for.

    Attributes:
        cause: "all", "mean_shift" or "centred".
        trap: which, in words.
        matrix: the part, in the original order of the entries.
        singular: its singular values in the shuffled matrix, largest first.
    """

    cause: str
    trap: str
    matrix: Floats
    singular: tuple[float, ...]

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return float(np.linalg.norm(self.matrix))


def trap_components(name: str, matrix: NDArray[np.floating], seed: int, singles: int) -> tuple[Component, ...]:
    """The largest traps one by one, all of them together, and the centred ones together.

    How many there are is the audit's count of its first shuffle; the components are the leading singular ones of that
    shuffle. "centred" are those of the matrix without its mean.

    Args:
        name: of the matrix.
        matrix: its entries.
        seed: of the shuffles.
        singles: at most so many are taken one by one.
    """
    traps = analyse_matrix(name, matrix, seed).traps
    if traps is None or not traps.counts:
        return ()
    count = traps.counts[0]
    shuffle = first_shuffle(matrix_id(name), (int(matrix.shape[0]), int(matrix.shape[1])), seed)
    whole = shuffle.apply(matrix.astype(np.float64))
    found: list[Component] = []
    if count.count:
        u, s, vt = np.linalg.svd(whole, full_matrices=False)
        ones = np.full(shuffle.shape[1], shuffle.shape[1] ** -0.5)
        for k in range(min(count.count, singles)):
            cause = "mean_shift" if abs(vt[k] @ ones) > 0.5**0.5 else "centred"
            part = shuffle.undo(s[k] * np.outer(u[:, k], vt[k]))
            found.append(Component(cause, f"{k + 1}", part, (float(s[k]),)))
        found.append(_together(shuffle, u, s, vt, count.count, "all"))
    if count.centred:
        u, s, vt = np.linalg.svd(whole - traps.bulk.mean, full_matrices=False)
        found.append(_together(shuffle, u, s, vt, count.centred, "centred"))
    return tuple(found)


def _together(shuffle: Shuffle, u: Floats, s: Floats, vt: Floats, count: int, cause: str) -> Component:
    part = shuffle.undo((u[:, :count] * s[:count]) @ vt[:count])
    return Component(cause, f"all {count}", part, tuple(s[:count].tolist()))


def largest_entries(matrix: NDArray[np.floating], mean: float, deviation: float) -> NDArray[np.bool_]:
    """Entries that alone push an eigenvalue out of the bulk: beyond s(NM)^¼ of the mean."""
    far: NDArray[np.bool_] = np.abs(matrix - mean) > deviation * entry_limit(*matrix.shape)
    return far
