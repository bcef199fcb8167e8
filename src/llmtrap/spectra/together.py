"""Several matrices at once: the eigenvalues that more than one of them waits for come from one call of the solver.

A computation in steps is a generator that yields each Gram matrix it wants the eigenvalues of, and is sent them. What
it does between two of them is its own: a matrix that cannot be measured says so, and those beside it go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array

Result = TypeVar("Result")
Steps: TypeAlias = Generator[Array, NDArray[np.float64], Result]
# A backend's `eigenvalues_of`.
Solver: TypeAlias = Callable[[Sequence[Array]], Sequence[NDArray[np.float64]]]


def together(runs: Sequence[Steps[Result]], solve: Solver) -> list[Result]:
    """Take computations to their ends, side by side, and return their results in order.

    Gram matrices of one size and float width that wait at the same time are solved in one call, whose eigenvalues are
    handed out before the next call. A call that fails is raised in each computation that waits for it.

    Raises:
        Exception: what a computation raised; the others are given up.
    """
    results: dict[int, Result] = {}
    waiting: dict[int, Array] = {}

    def move(k: int, step: Callable[[], Array]) -> None:
        try:
            waiting[k] = step()
        except StopIteration as end:
            results[k] = end.value

    for k, run in enumerate(runs):
        move(k, partial(next, run))
    while waiting:
        members = _alike(waiting)
        try:
            # Nothing here keeps the Gram matrices: their memory is wanted for what comes next.
            solved = solve([waiting.pop(k) for k in members])
        except Exception as failure:
            for k in members:
                move(k, partial(runs[k].throw, failure))
            continue
        for k, eigenvalues in zip(members, solved, strict=True):
            move(k, partial(runs[k].send, eigenvalues))
    return [results[k] for k in range(len(runs))]


def _alike(waiting: dict[int, Array]) -> list[int]:
    """Those that can share a call with the first that waits."""
    kinds = {k: (int(gram.shape[0]), str(gram.dtype)) for k, gram in waiting.items()}
    first = next(iter(kinds.values()))
    return [k for k, kind in kinds.items() if kind == first]
