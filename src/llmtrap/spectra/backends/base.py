"""What the spectra ask of an array library: the few operations whose fastest form differs between them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = Any  # an array of whatever library the backend stands for
HostFloats = NDArray[np.floating]


class Backend(Protocol):
    """Gram matrices and eigenvalues in one array library, on one device.

    A Gram matrix made by `gram` may hold only one triangle; it goes back only to the same backend.
    """

    name: str

    def from_host(self, block: HostFloats) -> Array:
        """Bring a host array to the device, without a copy where none is needed."""
        ...

    def gram(self, size: int, dtype: str) -> Array:
        """A zero Gram matrix of `size` × `size`, dtype 'float32' or 'float64'."""
        ...

    def add_gram(self, gram: Array, block: Array, *, transposed: bool = False) -> Array:
        """Return gram + blockᵀ·block, or gram + block·blockᵀ when `transposed`."""
        ...

    def add_rank_two(self, gram: Array, x: HostFloats, y: HostFloats) -> Array:
        """Return a new gram + x·yᵀ + y·xᵀ; the argument is kept."""
        ...

    def eigenvalues(self, gram: Array) -> NDArray[np.float64]:
        """All eigenvalues, ascending. The Gram matrix may be destroyed."""
        ...

    def top_eigenpairs(
        self, gram: Array, count: int, start: HostFloats, *, vectors: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The `count` largest eigenvalues, descending, and their unit vectors as columns where asked for.

        Args:
            gram: the Gram matrix; it is kept.
            count: how many.
            start: the vector an iterative solver starts from, so that two runs agree to the last bit.
            vectors: whether eigenvectors are wanted.
        """
        ...

    def column_sums(self, block: Array) -> NDArray[np.float64]:
        """Sums of the columns of a block, on the host."""
        ...
