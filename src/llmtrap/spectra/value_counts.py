"""How often each value of a matrix occurs, where its format has few: all that a shuffle depends on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.readers import Histogram

Floats = NDArray[np.floating]

# Bits that stay 0 at the end of a float32 that was a bfloat16 (or a code of 8 bits and less), and a float16.
SPARE_BITS = (16, 13)
# Values that a matrix of such a format can have: more of them are not counted.
MOST_VALUES = 1 << (32 - SPARE_BITS[-1])
# Codes counted at once: large enough to pay for the table, small enough to stay in the cache.
_COUNTED = 1 << 18


class ValueCounter:
    """How often each value occurs, of float32 entries whose last bits are 0: formats of 16 bits and less.

    `histogram` is None once an entry had more bits: such a matrix has too many values to count.
    """

    def __init__(self) -> None:
        self._spare = SPARE_BITS[0]
        self._counts: NDArray[np.int64] | None = np.zeros(1 << (32 - self._spare), dtype=np.int64)

    def add(self, block: Floats) -> None:
        """Count one block."""
        bits = self._bits(block)
        if bits is None or self._counts is None:
            return
        for start in range(0, bits.size, _COUNTED):
            codes = bits[start : start + _COUNTED] >> np.uint32(self._spare)
            self._counts += np.bincount(codes, minlength=self._counts.size)

    def add_counted(self, values: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        """Take a block of which it is known how often each value occurs."""
        bits = self._bits(values)
        if bits is not None and self._counts is not None:
            np.add.at(self._counts, bits >> np.uint32(self._spare), counts)

    @property
    def histogram(self) -> Histogram | None:
        """The values that occur, ascending, and how often: the form in which checkpoints count theirs."""
        if self._counts is None:
            return None
        codes = np.flatnonzero(self._counts)
        values = (codes.astype(np.uint32) << np.uint32(self._spare)).view(np.float32).astype(np.float64)
        distinct, place = np.unique(values, return_inverse=True)  # 0 and -0 are one value
        counts = np.zeros(distinct.size, dtype=np.int64)
        np.add.at(counts, place, self._counts[codes])
        return distinct, counts

    def _bits(self, values: Floats) -> NDArray[np.uint32] | None:
        """The bits of these entries, flat, with a table fine enough for them; None once one has too many."""
        if self._counts is None:
            return None
        if values.dtype != np.float32:
            self._counts = None
            return None
        bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
        used = int(np.bitwise_or.reduce(bits))
        spare = next((spare for spare in SPARE_BITS if spare <= self._spare and used % (1 << spare) == 0), None)
        if spare is None:
            self._counts = None
            return None
        if spare < self._spare:
            finer = np.zeros(1 << (32 - spare), dtype=np.int64)
            finer[:: 1 << (self._spare - spare)] = self._counts
            self._counts, self._spare = finer, spare
        return bits
