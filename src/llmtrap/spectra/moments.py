"""One pass over the entries of a matrix: mean, variance, kurtosis, extremes, and whether all of them are finite.

This pass is all that the certificate needs, so it runs at the speed of memory: power sums over cache-sized pieces,
BLAS dot products within a piece and float64 between pieces.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

Floats = NDArray[np.floating]

# Entries of a piece: 128 kB of float32, which stays in a core's second-level cache, with its squares, through all sums.
PIECE = 1 << 15
# Outside this range fourth powers leave float32, and the entries are scaled by a power of two first.
SMALLEST_UNSCALED, LARGEST_UNSCALED = 1e-8, 1e8
# Beyond these the squares of the entries, or their sums, leave float64: only float64 files can hold such entries.
SMALLEST, LARGEST = 1e-140, 1e140
# Where the mean stands this far out in standard deviations, raw sums cancel and a second pass subtracts it first.
CANCELLATION = 2.0


@dataclass(frozen=True)
class Moments:
    """Moments of all entries; `kurtosis` is E(w − mean)⁴ / variance², 3 for a Gaussian, 0 for a constant matrix."""

    count: int
    mean: float
    variance: float
    kurtosis: float
    minimum: float
    maximum: float

    @property
    def largest_deviation(self) -> float:
        """Largest |w − mean|."""
        return max(self.maximum - self.mean, self.mean - self.minimum)


class NonFiniteError(ValueError):
    """An entry is NaN or infinite: the moments do not exist."""


class OutOfRangeError(ValueError):
    """The largest entry is so large, or so small, that its square leaves float64."""


def power_of_two_scale(largest: float) -> float:
    """A power of two that brings `largest` near 1 where it would leave float32's range, else 1."""
    if largest == 0 or SMALLEST_UNSCALED <= largest <= LARGEST_UNSCALED:
        return 1.0
    return 2.0 ** -round(math.log2(largest))


def moments_of_blocks(
    blocks: Iterable[Any], *, shift: float = 0.0, scale: float = 1.0, new_sums: NewSums | None = None
) -> Moments:
    """Moments of all entries of the blocks.

    Args:
        blocks: arrays of any shape, float32 or float64.
        shift: subtracted from the entries before summing, against cancellation.
        scale: a power of two by which entries are multiplied before summing, against overflow.
        new_sums: how blocks are summed, given shift and scale; by default as arrays on the host.

    Raises:
        NonFiniteError: an entry is NaN or infinite.
    """
    sums = (new_sums or HostSums)(shift, scale)
    for block in blocks:
        sums.add(block)
    return sums.moments()


def moments_of_histogram(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Moments:
    """The same moments, exactly, of a matrix known by the values it holds and how often.

    Raises:
        NonFiniteError: a value that occurs is NaN or infinite.
    """
    present = counts > 0
    x, n = values[present], counts[present].astype(np.float64)
    if not np.isfinite(x).all():
        raise NonFiniteError
    total = float(n.sum())
    mean = float(n @ x) / total
    squares = (x - mean) ** 2
    variance = float(n @ squares) / total
    kurtosis = float(n @ (squares / variance) ** 2) / total if variance > 0 else 0.0
    return Moments(int(counts.sum()), mean, variance, kurtosis, float(x.min()), float(x.max()))


class MomentPass:
    """Moments gathered while blocks pass by on their way elsewhere, with what a second pass would need.

    `moments()` is None when the entries' size or mean made this pass inexact; `retry` then says how to repeat it.
    """

    def __init__(self, new_sums: NewSums | None = None) -> None:
        self._new_sums = new_sums
        self._sums = (new_sums or HostSums)(0.0, 1.0)

    def add(self, block: Any) -> None:
        """Take one block into the sums. Raises NonFiniteError."""
        self._sums.add(block)

    def finish(self, blocks: Iterable[Any] | None = None) -> Moments:
        """Return the moments, reading `blocks` again where the first pass was inexact.

        Raises:
            NonFiniteError: an entry is NaN or infinite.
            OutOfRangeError: squares of the entries leave float64.
        """
        first = self._sums.moments()
        largest = max(abs(first.minimum), abs(first.maximum))
        if largest > 0 and not SMALLEST <= largest <= LARGEST:
            raise OutOfRangeError
        scale = power_of_two_scale(largest)
        cancels = first.mean**2 > CANCELLATION**2 * first.variance
        if blocks is None or (scale == 1.0 and not cancels):
            return first
        once = list(blocks) if isinstance(blocks, Iterator) else blocks
        if scale != 1.0:
            first = moments_of_blocks(once, scale=scale, new_sums=self._new_sums)
            cancels = first.mean**2 > CANCELLATION**2 * first.variance
        if not cancels:
            return first
        return moments_of_blocks(once, shift=first.mean, scale=scale, new_sums=self._new_sums)


class Sums(ABC):
    """Power sums of blocks as they are added, and the moments they give. A subclass says how one block is summed."""

    def __init__(self, shift: float, scale: float):
        self._shift = shift
        self._scale = scale
        self._count = 0
        self._sums = (0.0, 0.0, 0.0, 0.0)
        self._minimum = math.inf
        self._maximum = -math.inf

    @abstractmethod
    def add(self, block: Any) -> None:
        """Take one block into the sums. Raises NonFiniteError."""

    def moments(self) -> Moments:
        """Of all blocks added so far."""
        if self._count == 0:
            return Moments(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        first, second, third, fourth = (total / self._count for total in self._sums)
        if self._minimum == self._maximum:
            return Moments(self._count, self._minimum, 0.0, 0.0, self._minimum, self._maximum)
        if not (math.isfinite(fourth) and fourth > 0):
            # Out of the float's range: finish() repeats the pass with scaled entries.
            return Moments(self._count, first, 0.0, 0.0, self._minimum, self._maximum)
        variance = second - first**2
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        kurtosis = central / variance**2 if variance > 0 else 0.0
        return Moments(
            count=self._count,
            mean=self._shift + first / self._scale,
            # Float products under- and overflow without an exception: entries beyond 10^±150 end at 0 or infinity.
            variance=max(variance, 0.0) / self._scale / self._scale,
            kurtosis=kurtosis,
            minimum=self._minimum,
            maximum=self._maximum,
        )


class HostSums(Sums):
    """Sums of NumPy arrays, over pieces that stay in the cache."""

    def __init__(self, shift: float, scale: float):
        super().__init__(shift, scale)
        self._buffers: dict[np.dtype[np.floating], tuple[Floats, Floats, Floats]] = {}

    def add(self, block: Floats) -> None:
        """By BLAS dot products."""
        flat = np.ascontiguousarray(block).reshape(-1)
        # An overflow or a NaN is seen in the sums' result; finish() then scales or refuses.
        with np.errstate(all="ignore"):
            for start in range(0, flat.size, PIECE):
                self._add_piece(flat[start : start + PIECE])
        self._count += flat.size

    def _add_piece(self, raw: Floats) -> None:
        size = raw.size
        narrow = raw.dtype == np.float32
        farthest = abs(float(raw[(blas.isamax if narrow else blas.idamax)(raw)]))
        # One pass finds the largest |w|; only where that could move an extreme are both looked for.
        if not farthest <= min(-self._minimum, self._maximum):
            self._take_extremes(raw)
        moved, squares, ones = self._buffers_for(raw.dtype)
        x = raw
        if self._shift != 0.0 or self._scale != 1.0:
            x = moved[:size]
            # In float64 first: the shift and a float32 entry may agree in all their leading digits.
            np.multiply(raw.astype(np.float64) - self._shift, self._scale, out=x, casting="same_kind")
        square = np.square(x, out=squares[:size])
        dot = blas.sdot if narrow else blas.ddot
        fourth_here = dot(square, square)
        if not math.isfinite(fourth_here):
            # BLAS may pass over a NaN as it looks for the largest entry; a sum never does.
            self._take_extremes(raw)
        first, second, third, fourth = self._sums
        self._sums = (
            first + dot(x, ones[:size]),
            second + dot(x, x),
            third + dot(square, x),
            fourth + fourth_here,
        )

    def _take_extremes(self, raw: Floats) -> None:
        low, high = float(np.minimum.reduce(raw)), float(np.maximum.reduce(raw))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NonFiniteError
        self._minimum = min(self._minimum, low)
        self._maximum = max(self._maximum, high)

    def _buffers_for(self, kind: np.dtype[np.floating]) -> tuple[Floats, Floats, Floats]:
        if kind not in self._buffers:
            self._buffers[kind] = (np.empty(PIECE, kind), np.empty(PIECE, kind), np.ones(PIECE, kind))
        return self._buffers[kind]


NewSums = Callable[[float, float], Sums]
