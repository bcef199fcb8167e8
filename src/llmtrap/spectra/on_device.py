"""A matrix on a device: it travels there as it is stored, and is decoded there as often as it is read.

What needs the host, which is a matrix that will be shuffled or that holds NaN, gets the decoded numbers back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from llmtrap.packed import Packed
from llmtrap.spectra.backends import Array, Decoder
from llmtrap.spectra.moments import NonFiniteError, Sums
from llmtrap.spectra.readers import Histogram
from llmtrap.spectra.value_counts import MOST_VALUES, ValueCounter

Floats = NDArray[np.floating]

# Packed bytes of one matrix that stay on the device between two passes; a larger matrix is read and sent again.
KEPT_BYTES = 2 << 30


class OnDevice:
    """The blocks of one matrix as arrays of a device.

    Args:
        shape: rows and columns.
        first: the packed blocks for the first pass.
        again: gives them anew, for every pass after that where they were not kept.
        decoder: of the device.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        first: Iterator[Packed],
        again: Callable[[], Iterator[Packed] | None],
        decoder: Decoder,
    ):
        self._shape = shape
        self._first: Iterator[Packed] | None = first
        self._again = again
        self._decoder = decoder
        self._kept: tuple[Packed, ...] | None = None

    def arrays(self) -> Iterator[Array]:
        """Decoded float32 blocks, top to bottom; a matrix wider than tall in one, as its Gram matrix needs it."""
        decoded = (self._decoder.decode(sent) for sent in self._sent())
        if self._shape[0] < self._shape[1]:
            yield self._decoder.join(list(decoded))
        else:
            yield from decoded

    def blocks(self) -> Iterator[Floats]:
        """The same numbers on the host."""
        for sent in self._sent():
            yield self._decoder.to_host(self._decoder.decode(sent))

    def histogram(self) -> Histogram | None:
        """Values and how often each occurs, where all are numbers of 16 bits and less; else None."""
        counter = ValueCounter()
        for sent in self._sent():
            found = self._decoder.distinct(self._decoder.decode(sent), MOST_VALUES)
            if found is None:
                return None
            counter.add_counted(*found)
        return counter.histogram

    def sums(self, shift: float, scale: float) -> Sums:
        """New power sums of arrays on this device."""
        return DeviceSums(shift, scale, self._decoder)

    def _sent(self) -> Iterator[Packed]:
        """Packed blocks on the device. A pass that is broken off keeps nothing."""
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        blocks, self._first = self._first or self._again(), None
        for packed in blocks or ():
            sent = self._decoder.send(packed)
            size += packed.size
            if size <= KEPT_BYTES:
                kept.append(sent)
            else:
                kept.clear()
            yield sent
        if size <= KEPT_BYTES:
            self._kept = tuple(kept)


class DeviceSums(Sums):
    """Power sums of a device's arrays, in float64."""

    def __init__(self, shift: float, scale: float, decoder: Decoder):
        super().__init__(shift, scale)
        self._decoder = decoder

    def add(self, block: Array) -> None:
        """One copy of six numbers to the host."""
        if not self._decoder.finite(block):
            raise NonFiniteError
        found = self._decoder.power_sums(block, self._shift, self._scale)
        self._count += found.count
        self._minimum = min(self._minimum, found.minimum)
        self._maximum = max(self._maximum, found.maximum)
        first, second, third, fourth = (a + b for a, b in zip(self._sums, found.powers, strict=True))
        self._sums = (first, second, third, fourth)
