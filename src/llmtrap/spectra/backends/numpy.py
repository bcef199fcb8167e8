"""The CPU backend: BLAS's symmetric update and LAPACK's values-only solver, through SciPy."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from llmtrap.spectra.backends.base import HostFloats
from llmtrap.spectra.backends.iteration import FULL_SOLVE_BELOW, top_by_iteration

# Columns that LAPACK's symmetric factorisation may take at once.
FACTOR_COLUMNS = 64


class NumpyBackend:
    """Gram matrices in Fortran order with only their lower triangle filled."""

    name = "numpy"
    # In the host's memory a packed matrix is decoded once, as it is read, into buffers that are used again.
    decoder = None

    def from_host(self, block: HostFloats) -> HostFloats:
        """Nothing to move."""
        return block

    def gram(self, size: int, dtype: str) -> HostFloats:
        """A zero matrix in the order BLAS wants."""
        return np.zeros((size, size), dtype=dtype, order="F")

    def add_gram(
        self, gram: HostFloats, block: HostFloats, *, transposed: bool = False, scale: float = 1.0
    ) -> HostFloats:
        """A symmetric rank-k update in place: half the work of a product."""
        if scale != 1.0:
            block = block.astype(np.float64) * scale
        return _updated(gram, block, 1.0, transposed=transposed)

    def subtract_gram(self, gram: HostFloats, block: HostFloats) -> HostFloats:
        """The same update, of a copy."""
        return _updated(gram.copy(order="F"), block, -1.0)

    def add_rank_two(self, gram: HostFloats, x: HostFloats, y: HostFloats) -> HostFloats:
        """A symmetric rank-2 update of a copy."""
        syr2 = blas.ssyr2 if gram.dtype == np.float32 else blas.dsyr2
        updated: HostFloats = syr2(
            1.0, x.astype(gram.dtype), y.astype(gram.dtype), a=gram.copy(order="F"), lower=1, overwrite_a=1
        )
        return updated

    def add_symmetric(self, gram: HostFloats, change: HostFloats) -> HostFloats:
        """One sum, in place of the change where that has the right width; the upper triangle means nothing."""
        # What is symmetric is its own transpose, and the transpose of rows is in BLAS's order.
        changed: HostFloats = np.asarray(change, dtype=gram.dtype, order="C").T
        changed += gram
        return changed

    def eigenvalues(self, gram: HostFloats) -> NDArray[np.float64]:
        """LAPACK's syev without vectors: the fastest of its drivers for values alone."""
        values = scipy.linalg.eigvalsh(gram, lower=True, driver="ev", overwrite_a=True, check_finite=False)
        return np.asarray(values, dtype=np.float64)

    def top_eigenpairs(
        self, gram: HostFloats, count: int, start: HostFloats, *, vectors: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """ARPACK on the lower triangle; a full solve where the matrix is small or most of it is asked for."""
        symv = blas.ssymv if gram.dtype == np.float32 else blas.dsymv

        def multiply(vector: HostFloats) -> HostFloats:
            product: HostFloats = symv(1.0, gram, vector.reshape(-1).astype(gram.dtype, copy=False), lower=1)
            return product

        found = top_by_iteration(multiply, start.astype(gram.dtype), count, vectors=vectors)
        return self._full(gram, count, vectors=vectors) if found is None else found

    def count_above(self, gram: HostFloats, edge: float) -> int:
        """The positive pivots of gram − edge·1 = L·D·Lᵀ (Sylvester's law of inertia): a sixth of a solve's time.

        In Bunch and Kaufman's pivoting every 2 × 2 block of D has one positive and one negative eigenvalue.
        """
        if gram.shape[0] < FULL_SOLVE_BELOW:
            return int((self.eigenvalues(gram.copy(order="F")) > edge).sum())
        factorise = lapack.ssytrf if gram.dtype == np.float32 else lapack.dsytrf
        shifted = gram.copy(order="F")
        diagonal = np.einsum("ii->i", shifted)
        diagonal -= edge
        factors, pivots, _ = factorise(shifted, lower=1, lwork=FACTOR_COLUMNS * gram.shape[0], overwrite_a=1)
        single = np.diagonal(factors)[pivots > 0]
        return int((single > 0).sum()) + int((pivots < 0).sum()) // 2

    def _full(
        self, gram: HostFloats, count: int, *, vectors: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        count = min(count, gram.shape[0])
        if not vectors:
            return self.eigenvalues(gram.copy(order="F"))[::-1][:count].copy(), None
        values, columns = scipy.linalg.eigh(gram, lower=True, check_finite=False)
        top = slice(None, -count - 1, -1)
        return np.asarray(values[top], dtype=np.float64), np.asarray(columns[:, top], dtype=np.float64)

    def column_sums(self, block: HostFloats) -> NDArray[np.float64]:
        """Sums in float64."""
        return np.asarray(block.sum(axis=0, dtype=np.float64))


def _updated(gram: HostFloats, block: HostFloats, weight: float, *, transposed: bool = False) -> HostFloats:
    """The lower triangle of gram + weight·blockᵀ·block (or block·blockᵀ), written over gram."""
    block = np.ascontiguousarray(block, dtype=gram.dtype)
    syrk = blas.ssyrk if gram.dtype == np.float32 else blas.dsyrk
    # BLAS sees a C-ordered block as its transpose, so blockᵀ·block is its plain A·Aᵀ.
    updated: HostFloats = syrk(weight, block.T, beta=1.0, c=gram, trans=int(transposed), lower=1, overwrite_c=1)
    return updated
