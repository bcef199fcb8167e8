"""A trap's component of the shuffled matrix, taken back to where the entries came from (arXiv 2605.12394, section 6).

The component is removed, or replaced by Gaussian noise of the same Frobenius norm; the same noise added to the matrix
with its component in place is the control without which the replacement says little: near the limit a component is
mostly bulk.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from llmtrap.ablation.candidates import Candidate
from llmtrap.ablation.stored_values import Change
from llmtrap.spectra.shuffle import generator_for, shuffled

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shuffle:
    """One shuffle and the way back.

    Attributes:
        order: entry k of the shuffled matrix was entry order[k] of the original.
        shape: of the shuffled matrix, N × M with N ≥ M.
        original: shape of the original.
    """

    order: NDArray[np.int64]
    shape: tuple[int, int]
    original: tuple[int, int]

    def apply(self, matrix: NDArray[np.floating]) -> Floats:
        """The shuffled matrix."""
        return matrix.reshape(-1).astype(np.float64)[self.order].reshape(self.shape)

    def undo(self, matrix: Floats) -> Floats:
        """The original order of a matrix's entries."""
        flat = np.empty(matrix.size)
        flat[self.order] = matrix.reshape(-1)
        return flat.reshape(self.original)


def first_shuffle(identity: str, shape: tuple[int, int], seed: int) -> Shuffle:
    """The first shuffle that the audit's own code draws of a matrix: the same generator on the entries' places."""
    places = np.arange(shape[0] * shape[1], dtype=np.float64)  # exact up to 2^53
    order = shuffled(places, generator_for(seed, identity, 0))
    return Shuffle(order.astype(np.int64), (max(shape), min(shape)), shape)


def paper_changes(candidate: Candidate, matrix: NDArray[np.floating], seed: int) -> dict[str, Change]:
    """The paper's three interventions on a trap: its component removed, replaced by noise, and the noise alone.

    The component is the singular one of the shuffled matrix that overlaps most with the candidate's entry, or the
    leading one for a cause that is no single entry.
    """
    part = _component(candidate, matrix, seed).astype(np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(candidate.name.encode()), 1])
    noise = rng.standard_normal(matrix.shape, dtype=np.float32)
    noise *= np.float32(np.linalg.norm(part) / np.linalg.norm(noise))
    return {
        "removed": lambda given: given - part,
        "replaced": lambda given: given - part + noise,
        "noise alone": lambda given: given + noise,
    }


def _component(candidate: Candidate, matrix: NDArray[np.floating], seed: int) -> Floats:
    shuffle = first_shuffle(candidate.matrix, (int(matrix.shape[0]), int(matrix.shape[1])), seed)
    whole = shuffle.apply(matrix)
    most = min(8, min(whole.shape) - 1)
    left, singular, right = svds(whole, k=most, v0=np.ones(min(whole.shape)))
    best = int(singular.argmax())
    if candidate.kind == "entry":
        place = (candidate.row or 0) * matrix.shape[1] + (candidate.column or 0)
        row, column = divmod(int(np.flatnonzero(shuffle.order == place)[0]), whole.shape[1])
        best = int(np.abs(left[row] * right[:, column]).argmax())
    return shuffle.undo(singular[best] * np.outer(left[:, best], right[best]))
