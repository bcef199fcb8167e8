"""One matrix as the measurements ask for it: read once, and held, counted or read again as they need it.

Where its entries are, and in what form, is decided here alone: in memory where they fit, on a device as they are
stored, as a histogram where the values are few; one too large to hold leaves behind what its only pass gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Array, Backend
from llmtrap.spectra.certificate import Bulk, EntriesWithin, Exceedances, bulk_of, bulk_of_histogram, exceedances
from llmtrap.spectra.entries import CountedEntries, Entries, HeldEntries, standardise
from llmtrap.spectra.measured import NonFinite
from llmtrap.spectra.moments import MomentPass, Moments, NonFiniteError, moments_of_histogram
from llmtrap.spectra.on_device import OnDevice
from llmtrap.spectra.readers import ArrayReader, Histogram, MatrixReader, locate_non_finite
from llmtrap.spectra.settings import HELD_ENTRIES, AnalysisSettings
from llmtrap.spectra.shuffle import TABLE_FROM
from llmtrap.spectra.single_pass import FirstPass, SinglePass
from llmtrap.spectra.value_counts import SPARE_BITS, ValueCounter

Floats = NDArray[np.floating]


class MatrixData:
    """The entries of one matrix.

    Args:
        reader: gives them, as often as needed.
        settings: what will be measured, which decides what is worth keeping.
        backend: where that is computed.
        first: what the only pass over the matrix gave, where it `is_read_once` and somebody else has read it.
    """

    def __init__(
        self, reader: MatrixReader, settings: AnalysisSettings, backend: Backend, first: FirstPass | None = None
    ):
        self.shape = reader.shape
        self._reader = reader
        self._settings = settings
        self._backend = backend
        self._held: Floats | None = None
        self._first = first
        self._passed: SinglePass | None = None
        self._counted: Histogram | None = None
        self._non_finite: NonFinite | None = None
        self._borrowed = isinstance(reader, ArrayReader)
        packed = None if backend.decoder is None else reader.packed_blocks()
        self._device: OnDevice | None = None
        if backend.decoder is not None and packed is not None:
            self._device = OnDevice(self.shape, packed, reader.packed_blocks, backend.decoder)

    def moments(self) -> Moments:
        """Of all entries: the first pass over them.

        Raises:
            NonFiniteError: an entry is NaN or infinite.
            OutOfRangeError: squares of the entries leave float64.
        """
        if self._device is not None:
            sums = MomentPass(self._device.sums)
            for array in self._device.arrays():
                sums.add(array)
            return sums.finish(_Again(self._device.arrays))
        if self._settings.alpha or self._settings.traps == "measure":
            return self._hold() if self._fits() else self._pass_once()
        self._counted = self._reader.histogram()
        if self._counted is not None:
            return moments_of_histogram(*self._counted)
        if not self._fits():
            return self._pass_once()
        sums = MomentPass()
        for _ in self._summed(sums):
            pass
        return sums.finish(_Again(self._read))

    def bulk(self, moments: Moments) -> Bulk:
        """Mean and variance of the bulk."""
        if self._counted is not None:
            return bulk_of_histogram(self.shape, *self._counted)
        return bulk_of(self.shape, moments, self._blocks, self.beyond)

    def beyond(self, centre: float, distance: float) -> Exceedances:
        """The entries with |w − centre| > distance, with their places."""
        kept = None if self._passed is None else self._passed.farthest.beyond(centre, distance)
        return exceedances(self._blocks(), centre, distance) if kept is None else kept

    def rest(self, centre: float, distance: float) -> Moments:
        """Moments of the entries within a distance of a centre."""
        if self._counted is not None:
            values, counts = self._counted
            inside = np.abs(values - centre) <= distance
            return moments_of_histogram(values[inside], counts[inside])
        sums, rest = MomentPass(), EntriesWithin(self._blocks, centre, distance)
        for block in rest:
            sums.add(block)
        return sums.finish(rest)

    def arrays(self) -> Iterator[Array]:
        """The matrix once more, top to bottom, as the backend's own arrays."""
        if self._device is not None:
            return self._device.arrays()
        return map(self._backend.from_host, self._blocks())

    def formed_gram(self) -> tuple[bool, Array | None]:
        """Whether the spectrum wants float64 at once, and the Gram matrix where the first pass formed it.

        The Gram matrix is given away: it may be destroyed.
        """
        if self._passed is not None:
            gram, self._passed.gram = self._passed.gram, None
            return self._passed.double, gram
        return self._held is not None and self._held.dtype == np.float64, None

    def entries(self, bulk: Bulk) -> Entries:
        """What a shuffle is drawn from; afterwards nothing else can be asked of the matrix."""
        shape = (max(self.shape), min(self.shape))
        # By value or by place, as the matrix alone decides: with and without α the same seed draws the same shuffles.
        if self._fits() and (shape[0] * shape[1] < TABLE_FROM or not _is_countable(self._counted)):
            self._counted = None
            if self._held is None and self._device is None:
                self._hold()
        # Of a pair what is held is shuffled by place, which its other version shares.
        if self._settings.paired and self._fits() and self._device is None:
            self._counted = None
            if self._held is None:
                self._hold()
        elif self._counted is None and shape[0] * shape[1] >= TABLE_FROM:
            self._counted = self._count()
        if self._counted is not None:
            self._release()
            values, counts = self._counted
            standard = standardise(values.astype(np.float32), bulk)
            return CountedEntries(standard.astype(np.float64), counts, shape, _largest(standard))
        if self._held is None:
            self._hold()
        assert self._held is not None  # noqa: S101 - held just above
        # The matrix is not needed any more but by the caller who lent it: standardise in its place.
        standard = standardise(self._held, bulk)
        self._release()
        return HeldEntries(standard, shape, _largest(standard))

    def non_finite(self) -> NonFinite:
        """Where the entries are that are no numbers."""
        return self._non_finite or locate_non_finite(self._read())

    def _fits(self) -> bool:
        return _is_held(self.shape)

    def _read(self) -> Iterator[Floats]:
        """Blocks on the host, from wherever they are decoded."""
        return self._reader.blocks() if self._device is None else self._device.blocks()

    def _blocks(self) -> Iterator[Floats]:
        """The matrix once more: held from now on where it fits, since a prediction or a shuffle will need it too."""
        if self._held is None and self._fits():
            self._hold()
        if self._held is not None:
            yield self._held
        else:
            yield from self._read()

    def _hold(self) -> Moments:
        """Read the matrix into memory, summing while each block is still in the cache."""
        sums = MomentPass()
        held: Floats | None = None
        top = 0
        for block in self._summed(sums):
            if self._borrowed:
                held = block
                break
            if held is None:
                held = np.empty(self.shape, dtype=block.dtype)
            held[top : top + block.shape[0]] = block
            top += block.shape[0]
        self._held = held if held is not None else np.zeros(self.shape, dtype=np.float32)
        return sums.finish([self._held])

    def _pass_once(self) -> Moments:
        """Read a matrix that is not held, unless that is done, and gather what it would be read again for."""
        first = self._first
        if first is None:
            first = FirstPass(self.shape, self._backend, gram=self._settings.alpha)
            for block in self._read():
                first.add(block)
        if first.non_finite is not None:
            self._non_finite = first.non_finite
            raise NonFiniteError
        self._passed = first.gathered
        self._counted = self._passed.histogram
        return first.sums.finish(_Again(self._read)) if self._counted is None else moments_of_histogram(*self._counted)

    def _summed(self, sums: MomentPass) -> Iterator[Floats]:
        """The blocks once they are in the sums. Where one holds NaN the rest is searched too, since it comes anyway."""
        top = 0
        blocks = iter(self._read())
        for block in blocks:
            try:
                sums.add(block)
            except NonFiniteError:
                self._non_finite = locate_non_finite(chain([block], blocks), top)
                raise
            top += block.shape[0]
            yield block

    def _count(self) -> Histogram | None:
        """Count the values of a matrix that is here, held or on a device: it is not read again for it."""
        if self._held is not None:
            counter = ValueCounter()
            counter.add(self._held)
            return counter.histogram
        # A matrix that is neither was counted as it was read, or has too many values.
        return None if self._device is None else self._device.histogram()

    def _release(self) -> None:
        """Let go of the matrix, which only the caller who lent it needs from now on."""
        if not self._borrowed:
            self._held = None


def is_read_once(shape: tuple[int, int], settings: AnalysisSettings, backend: Backend) -> bool:
    """Whether a matrix is too large to hold and goes through a `FirstPass`, on the host."""
    by_blocks = settings.alpha or settings.traps == "measure"
    return by_blocks and not _is_held(shape) and backend.decoder is None


def _is_held(shape: tuple[int, int]) -> bool:
    # A matrix wider than tall has its Gram matrix formed in one go, so it must be held whatever its size.
    rows, columns = shape
    return rows * columns <= HELD_ENTRIES or rows < columns


def _is_countable(histogram: Histogram | None) -> bool:
    """Whether a pass over the entries would have counted them: all are numbers of 16 bits and less."""
    if histogram is None:
        return False
    values = histogram[0].astype(np.float32)
    used = int(np.bitwise_or.reduce(values.view(np.uint32))) if values.size else 0
    return any(used % (1 << spare) == 0 for spare in SPARE_BITS)


@dataclass(frozen=True)
class _Again:
    """An iterable that starts over each time it is asked."""

    start: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.start()


def _largest(entries: Floats) -> float:
    return max(float(entries.max()), -float(entries.min()))
