"""A matrix too large to hold, read once: what later measures ask of its entries is gathered while they pass by.

A checkpoint on a hub would else be fetched once for each measure, or held as it is stored. Three things stand for the
entries once they are gone: their Gram matrix for the spectrum; how often each value occurs, which is all that the
moments, the bulk and a shuffle depend on; and the entries farthest out with their places, for naming a trap's cause.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend
from llmtrap.spectra.certificate import Exceedances, exceedances
from llmtrap.spectra.esd import first_precision
from llmtrap.spectra.measured import NonFinite
from llmtrap.spectra.moments import MomentPass, NonFiniteError
from llmtrap.spectra.readers import Histogram, locate_non_finite
from llmtrap.spectra.value_counts import ValueCounter

Floats = NDArray[np.floating]

# Entries compared with the limits at once.
_SEARCHED = 1 << 20
# Times √(NM): a bulk with all of the matrix' spread leaves at most 1.6 of them beyond the distance of a suspect.
_FARTHEST = 4


class ExtremeEntries:
    """The lowest and the greatest entries with their places.

    Args:
        shape: rows and columns.
        most: entries kept on either side; the limits beyond which all are kept move outwards as more come.
    """

    def __init__(self, shape: tuple[int, int], most: int | None = None):
        self._columns = shape[1]
        self._most = most or math.ceil(_FARTHEST * math.sqrt(shape[0] * shape[1]))
        self._low, self._high = -math.inf, math.inf
        self._begun = False
        self._places: list[NDArray[np.int64]] = []
        self._values: list[Floats] = []
        self._kept = 0

    def add(self, block: Floats, top: int) -> None:
        """Take one block of rows, whose first is row `top` of the matrix."""
        flat = np.ascontiguousarray(block).reshape(-1)
        for start in range(0, flat.size, _SEARCHED):
            piece = flat[start : start + _SEARCHED]
            places = (
                np.flatnonzero((piece < self._low) | (piece > self._high)) if self._begun else np.arange(piece.size)
            )
            self._values.append(piece[places])
            self._places.append(places + (top * self._columns + start))
            self._kept += places.size
            if self._kept > 4 * self._most:
                self._cut()

    def _cut(self) -> None:
        """Keep the outermost on either side, and let nothing nearer in from now on."""
        values, places = np.concatenate(self._values), np.concatenate(self._places)
        ordered = np.partition(values, (self._most, values.size - self._most - 1))
        low, high = ordered[self._most], ordered[-self._most - 1]
        # Of several entries at a limit some would be left out: only what lies beyond it is known to be all there.
        outside = (values < low) | (values > high)
        self._low, self._high, self._begun = float(low), float(high), True
        self._values, self._places, self._kept = [values[outside]], [places[outside]], int(outside.sum())

    def beyond(self, centre: float, distance: float) -> Exceedances | None:
        """All entries with |w − centre| > distance in the order of the matrix; None where some were not kept."""
        if self._begun and not (centre - distance <= self._low and centre + distance >= self._high):
            return None
        # What was kept is in the order of the matrix: pieces come so, and a cut keeps it.
        found = exceedances([np.concatenate(self._values).reshape(-1, 1)], centre, distance)
        rows, columns = np.divmod(np.concatenate(self._places)[found.rows], self._columns)
        return Exceedances(rows, columns, found.values)


class SinglePass:
    """All three, of blocks of rows that come top to bottom.

    Args:
        shape: rows and columns, not fewer rows than columns.
        backend: where the Gram matrix is formed.
        gram: whether it is wanted.
    """

    def __init__(self, shape: tuple[int, int], backend: Backend, *, gram: bool):
        self._shape = shape
        self._backend = backend
        self._wanted = gram
        self._top = 0
        self._counter = ValueCounter()
        self.gram: Array | None = None
        self.double = False
        self.farthest = ExtremeEntries(shape)

    def add(self, block: Floats) -> None:
        """Take one block, which may be overwritten afterwards."""
        if self._wanted:
            if self.gram is None:
                self.double = block.dtype == np.float64
                self.gram = self._backend.gram(self._shape[1], first_precision(self._shape, double=self.double))
            self.gram = self._backend.add_gram(self.gram, self._backend.from_host(block))
        self._counter.add(block)
        self.farthest.add(block, self._top)
        self._top += block.shape[0]

    @property
    def histogram(self) -> Histogram | None:
        """Values and counts, where the matrix has few values."""
        return self._counter.histogram


class FirstPass:
    """The one pass over a matrix too large to hold: moments, and all that it would be read again for.

    Whoever reads the blocks hands them on, top to bottom; so two matrices can be read side by side.

    Args:
        shape: rows and columns, not fewer rows than columns.
        backend: where the Gram matrix is formed.
        gram: whether it is wanted.
    """

    def __init__(self, shape: tuple[int, int], backend: Backend, *, gram: bool):
        self.sums = MomentPass()
        self.gathered = SinglePass(shape, backend, gram=gram)
        self.non_finite: NonFinite | None = None
        self._top = 0

    def add(self, block: Floats) -> None:
        """Take one block, which may be overwritten afterwards. From the first NaN on only those are counted."""
        if self.non_finite is None:
            try:
                self.sums.add(block)
                self.gathered.add(block)
            except NonFiniteError:
                self.non_finite = locate_non_finite([block], self._top)
        else:
            more, first = locate_non_finite([block], self._top), self.non_finite
            self.non_finite = first.model_copy(update={"nan": first.nan + more.nan, "inf": first.inf + more.inf})
        self._top += block.shape[0]
