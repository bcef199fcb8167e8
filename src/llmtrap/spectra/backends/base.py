"""What the spectra ask of an array library: the few operations whose fastest form differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmtrap.packed import Packed

Array = Any  # an array of whatever library the backend stands for
HostFloats = NDArray[np.floating]


@dataclass(frozen=True)
class PowerSums:
    """Of a block of entries w: how many, the least, the greatest, and Σx, Σx², Σx³, Σx⁴ of x = (w − shift)·scale."""

    count: int
    minimum: float
    maximum: float
    powers: tuple[float, float, float, float]


class Decoder(Protocol):
    """Takes matrices as they are stored to a device, so that the host need not decode them."""

    def send(self, packed: Packed) -> Packed:
        """The same block with its arrays on the device."""
        ...

    def decode(self, sent: Packed) -> Array:
        """The float32 numbers of a block that was sent."""
        ...

    def join(self, blocks: Sequence[Array]) -> Array:
        """Blocks of rows one under the other."""
        ...

    def finite(self, block: Array) -> bool:
        """Whether no number is NaN or infinite."""
        ...

    def power_sums(self, block: Array, shift: float, scale: float) -> PowerSums:
        """What the moments of a block of finite entries are made of."""
        ...

    def distinct(self, block: Array, most: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """The values of a finite block and how often each occurs; None where they are more than `most`."""
        ...

    def to_host(self, block: Array) -> HostFloats:
        """A copy on the host."""
        ...


class Backend(Protocol):
    """Gram matrices and eigenvalues in one array library, on one device.

    A Gram matrix made by `gram` may hold only one triangle; it goes back only to the same backend. `decoder` is None
    where the host decodes as it reads.
    """

    name: str

    @property
    def decoder(self) -> Decoder | None:
        """How stored matrices are taken to the device."""
        ...

    def from_host(self, block: HostFloats) -> Array:
        """Bring a host array to the device, without a copy where none is needed."""
        ...

    def gram(self, size: int, dtype: str) -> Array:
        """A zero Gram matrix of `size` × `size`, dtype 'float32' or 'float64'."""
        ...

    def add_gram(self, gram: Array, block: Array, *, transposed: bool = False, scale: float = 1.0) -> Array:
        """Return gram + blockᵀ·block, or gram + block·blockᵀ when `transposed`, of the block times `scale`.

        `scale` is a power of two that brings the entries near 1.
        """
        ...

    def subtract_gram(self, gram: Array, block: Array) -> Array:
        """Return a new gram − blockᵀ·block; the argument is kept."""
        ...

    def add_rank_two(self, gram: Array, x: HostFloats, y: HostFloats) -> Array:
        """Return a new gram + x·yᵀ + y·xᵀ; the argument is kept."""
        ...

    def add_symmetric(self, gram: Array, change: HostFloats) -> Array:
        """Return gram + change, of a symmetric matrix on the host that may be overwritten; the Gram matrix is kept."""
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

    def count_above(self, gram: Array, edge: float) -> int:
        """How many eigenvalues are greater than `edge`. The Gram matrix is kept."""
        ...

    def column_sums(self, block: Array) -> NDArray[np.float64]:
        """Sums of the columns of a block, on the host."""
        ...
