"""The largest eigenvalues of a symmetric matrix from products with vectors alone: ARPACK, wherever the matrix lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from llmtrap.spectra.backends.base import HostFloats

# Under this size all eigenvalues cost less than setting up an iteration for a few.
FULL_SOLVE_BELOW = 400
# Relative accuracy of an iterated eigenvalue: the Tracy–Widom scale is about 2·10⁻³ of the edge at 5760 × 2880, so
# this is a few thousandths of a standard deviation.
ITERATION_TOLERANCE = 1e-5


def top_by_iteration(
    multiply: Callable[[HostFloats], HostFloats], start: HostFloats, count: int, *, vectors: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | None:
    """The `count` largest eigenvalues, descending, and their unit vectors as columns where asked for.

    Args:
        multiply: the matrix times a vector [M], in the float width of `start`.
        start: the vector [M] the iteration starts from.
        count: how many.
        vectors: whether eigenvectors are wanted.

    Returns:
        None where a full solve must do: the matrix is small, most of it is asked for, or nothing converged.
    """
    size = start.size
    if size < FULL_SOLVE_BELOW or 4 * count > size:
        return None
    operator = LinearOperator((size, size), matvec=multiply, dtype=start.dtype)
    try:
        solved = eigsh(
            operator,
            k=count,
            which="LA",
            v0=start,
            tol=ITERATION_TOLERANCE,
            ncv=max(2 * count + 1, 40),
            return_eigenvectors=vectors,
        )
    except ArpackNoConvergence:
        return None
    values, columns = solved if vectors else (solved, None)
    order = np.argsort(values)[::-1]
    found = np.asarray(values[order], dtype=np.float64)
    return found, None if columns is None else np.asarray(columns[:, order], dtype=np.float64)
