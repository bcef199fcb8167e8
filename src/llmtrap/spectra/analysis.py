"""Everything llmtrap measures of one matrix: entries, spectrum, α, certificate, traps and their causes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import MatrixError
from llmtrap.packed import Packed
from llmtrap.spectra.backends import Backend, NumpyBackend
from llmtrap.spectra.causes import FoundTrap, find_causes, suspect_distance
from llmtrap.spectra.certificate import Bulk, Certificate, bulk_of, certify, exceedances
from llmtrap.spectra.esd import Esd, LogHistogram, compute_esd, esd_of_arrays, log_histogram
from llmtrap.spectra.marchenko_pastur import BulkFit
from llmtrap.spectra.moments import (
    MomentPass,
    Moments,
    NonFiniteError,
    OutOfRangeError,
    moments_of_histogram,
    power_of_two_scale,
)
from llmtrap.spectra.on_device import OnDevice
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import (
    RELIABLE_FROM_SIDE,
    CountedEntries,
    Entries,
    HeldEntries,
    ShuffleCount,
    TrapMeasurement,
    TrapSearch,
    edge_z,
    measure_traps,
    standardise,
)

Floats = NDArray[np.floating]
TrapMethod = Literal["certified", "measured", "undecided"]
Histogram = tuple[NDArray[np.float64], NDArray[np.int64]]

# Entries held in memory at once; larger matrices are read by blocks as often as needed (200 MB of float32).
HELD_ENTRIES = 50_000_000


class MatrixReader(Protocol):
    """A matrix that can be read top to bottom as often as needed.

    `shape` is rows × columns as stored.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def blocks(self) -> Iterator[Floats]:
        """Yield blocks of rows, float32 or float64; a block may be overwritten by the next."""
        ...

    def histogram(self) -> Histogram | None:
        """Values and how often each occurs, where the storage format makes that cheaper than decoding; else None."""
        ...

    def packed_blocks(self) -> Iterator[Packed] | None:
        """The blocks as they are stored, for a device to decode; None where only `blocks` has them."""
        ...


@dataclass(frozen=True)
class ArrayReader:
    """A matrix in memory."""

    array: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.array.shape
        return int(rows), int(columns)

    def blocks(self) -> Iterator[Floats]:
        """One block."""
        yield self.array

    def histogram(self) -> Histogram | None:
        """An array in memory is quickest summed as it is."""
        return None

    def packed_blocks(self) -> Iterator[Packed] | None:
        """An array in memory is decoded already."""
        return None


@dataclass(frozen=True)
class AnalysisSettings:
    """What to measure of a matrix.

    `traps`: auto (certify, else measure), measure (shuffle always), certify (one pass only).
    """

    alpha: bool = True
    traps: str = "auto"
    rule: str = "tracy-widom"
    shuffles: int = 5
    seed: int = 0


@dataclass(frozen=True)
class NonFiniteEntries:
    """How many entries are NaN or infinite, and where the first is (row, column of the stored matrix)."""

    nan: int
    inf: int
    row: int
    column: int


@dataclass(frozen=True)
class TrapAnalysis:
    """Traps of one matrix. `method` is certified, measured or undecided; `edge` is an eigenvalue of RᵀR.

    `counts` has one element a shuffle; `spectrum` is the first shuffle's whole spectrum, where it was computed.
    """

    method: TrapMethod
    rule: str
    certificate: Certificate
    bulk: Bulk
    edge: float | None
    reliable: bool
    counts: tuple[ShuffleCount, ...] = ()
    found: tuple[FoundTrap, ...] = ()
    bulk_fit: BulkFit | None = None
    spectrum: NDArray[np.float64] | None = None

    @property
    def count(self) -> int:
        """Median number of traps over the shuffles; the lower one of two middle counts."""
        return _lower_median([c.count for c in self.counts])

    @property
    def centred(self) -> int:
        """Median number of traps that do not go away with the mean."""
        return _lower_median([c.centred for c in self.counts])

    @property
    def mean_shift(self) -> int:
        """Median number of traps that go away with the mean."""
        return _lower_median([c.mean_shift for c in self.counts])

    @property
    def shuffled_histogram(self) -> LogHistogram | None:
        """The first shuffle's spectrum in logarithmic bins."""
        return None if self.spectrum is None else log_histogram(self.spectrum)


@dataclass(frozen=True)
class MatrixAnalysis:
    """All results of one matrix. With `non_finite` set, nothing else is."""

    shape: tuple[int, int]
    moments: Moments | None
    esd: Esd | None
    traps: TrapAnalysis | None
    non_finite: NonFiniteEntries | None


def analyse(
    matrix: MatrixReader | Floats,
    settings: AnalysisSettings | None = None,
    *,
    matrix_id: str = "",
    backend: Backend | None = None,
) -> MatrixAnalysis:
    """Measure one matrix.

    Args:
        matrix: an array (other than float32 and float64 are converted), or a reader for one that need not be in memory.
        settings: what to measure.
        matrix_id: names the matrix for the seeds of its shuffles.
        backend: where to compute; NumPy by default.

    Raises:
        MatrixError: the squares of the entries leave float64 (the largest is beyond 10^±140).
    """
    reader = ArrayReader(_as_floats(matrix)) if isinstance(matrix, np.ndarray) else matrix
    chosen = settings or AnalysisSettings()
    run = _Analysis(
        reader,
        chosen,
        TrapSearch(matrix_id, chosen.seed, chosen.rule, chosen.shuffles, chosen.traps == "measure"),
        backend or NumpyBackend(),
    )
    try:
        return run.result()
    except NonFiniteError:
        return MatrixAnalysis(reader.shape, None, None, None, run.non_finite())
    except OutOfRangeError:
        raise MatrixError(
            "the squares of its entries leave the range of float64",
            remedy="Rescale the tensor: no network computes with such weights",
        ) from None


def _as_floats(array: NDArray[np.generic]) -> Floats:
    """The array in a float width that holds its values: BLAS and the sums know float32 and float64 alone."""
    if array.dtype in (np.float32, np.float64):
        return np.asarray(array)
    return np.asarray(array, dtype=np.float32 if array.dtype.itemsize <= 2 else np.float64)


def locate_non_finite(blocks: Iterable[Floats]) -> NonFiniteEntries:
    """Count the entries that are no numbers and find the first."""
    nan = inf = 0
    first: tuple[int, int] | None = None
    top = 0
    for block in blocks:
        bad = ~np.isfinite(block)
        if bad.any():
            nans = int(np.isnan(block).sum())
            nan, inf = nan + nans, inf + int(bad.sum()) - nans
            if first is None:
                row, column = (int(k[0]) for k in np.nonzero(bad))
                first = (top + row, column)
        top += block.shape[0]
    row, column = first or (0, 0)
    return NonFiniteEntries(nan, inf, row, column)


class _Analysis:
    """One matrix's way through the measurements; holds its entries where they fit."""

    def __init__(self, reader: MatrixReader, settings: AnalysisSettings, search: TrapSearch, backend: Backend):
        self._reader = reader
        self._settings = settings
        self._search = search
        self._backend = backend
        self._shape = reader.shape
        self._held: Floats | None = None
        self._borrowed = isinstance(reader, ArrayReader)
        packed = None if backend.decoder is None else reader.packed_blocks()
        self._device: OnDevice | None = None
        if backend.decoder is not None and packed is not None:
            self._device = OnDevice(self._shape, packed, reader.packed_blocks, backend.decoder)

    def result(self) -> MatrixAnalysis:
        moments = self._moments()
        esd = self._esd(moments) if self._settings.alpha else None
        return MatrixAnalysis(self._shape, moments, esd, self._traps(moments), None)

    def non_finite(self) -> NonFiniteEntries:
        """Where the entries are that are no numbers."""
        return locate_non_finite(self._read())

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self) -> Iterator[Floats]:
        """Blocks on the host, from wherever they are decoded."""
        return self._reader.blocks() if self._device is None else self._device.blocks()

    def _moments(self) -> Moments:
        if self._device is not None:
            sums = MomentPass(self._device.sums)
            for array in self._device.arrays():
                sums.add(array)
            return sums.finish(_Again(self._device.arrays))
        if self._settings.alpha or self._settings.traps == "measure":
            if self._fits():
                return self._hold()
        elif (counted := self._reader.histogram()) is not None:
            return moments_of_histogram(*counted)
        sums = MomentPass()
        for block in self._reader.blocks():
            sums.add(block)
        return sums.finish(_Again(self._reader.blocks))

    def _fits(self) -> bool:
        # A matrix wider than tall has its Gram matrix formed in one go, so it must be held whatever its size.
        rows, columns = self._shape
        return rows * columns <= HELD_ENTRIES or rows < columns

    def _hold(self) -> Moments:
        """Read the matrix into memory, summing while each block is still in the cache."""
        sums = MomentPass()
        held: Floats | None = None
        top = 0
        for block in self._read():
            sums.add(block)
            if self._borrowed:
                held = block
                break
            if held is None:
                held = np.empty(self._shape, dtype=block.dtype)
            held[top : top + block.shape[0]] = block
            top += block.shape[0]
        self._held = held if held is not None else np.zeros(self._shape, dtype=np.float32)
        return sums.finish([self._held])

    def _blocks(self) -> Iterator[Floats]:
        if self._held is None and self._device is not None and self._fits():
            self._hold()
        if self._held is not None:
            yield self._held
        else:
            yield from self._read()

    # -- measuring ----------------------------------------------------------------------------------------------

    def _esd(self, moments: Moments) -> Esd:
        scale = power_of_two_scale(max(abs(moments.minimum), abs(moments.maximum)))
        if self._device is not None:
            return esd_of_arrays(self._device.arrays, self._shape, self._backend, scale=scale)
        double = self._held is not None and self._held.dtype == np.float64
        return compute_esd(self._blocks, self._shape, self._backend, scale=scale, double=double)

    def _traps(self, moments: Moments) -> TrapAnalysis:
        bulk = bulk_of(self._shape, moments, self._blocks)
        certificate = certify(self._shape, moments, bulk)
        n, m = max(self._shape), min(self._shape)
        rule, reliable = self._settings.rule, m >= RELIABLE_FROM_SIDE
        law = EdgeLaw.of(n, m)
        edge = law.eigenvalue(edge_z(rule, self._shape)) * bulk.variance if bulk.variance > 0 else None
        shuffling = self._settings.traps == "measure" or (self._settings.traps == "auto" and not certificate.certified)
        if bulk.variance == 0 or not shuffling:
            method: TrapMethod = "certified" if certificate.certified else "undecided"
            return TrapAnalysis(method, rule, certificate, bulk, edge, reliable)
        far = exceedances(self._blocks(), bulk.mean, suspect_distance(self._shape, bulk))
        entries = self._entries(bulk)
        measured = measure_traps(entries, bulk, self._search, self._backend)
        found: tuple[FoundTrap, ...] = ()
        if measured.first.count.count or measured.first.count.centred:
            found = find_causes(entries, measured, far, bulk, self._search, self._backend)
        return TrapAnalysis(
            "measured", rule, certificate, bulk, edge, reliable,
            counts=measured.counts,
            found=found,
            bulk_fit=measured.bulk_fit,
            spectrum=_in_units(measured, bulk),
        )  # fmt: skip

    def _entries(self, bulk: Bulk) -> Entries:
        shape = (max(self._shape), min(self._shape))
        if self._held is None and not self._fits():
            counted = self._reader.histogram()
            if counted is not None:
                values, counts = counted
                standard = standardise(values.astype(np.float32), bulk)
                return CountedEntries(standard.astype(np.float64), counts, shape, _largest(standard))
        if self._held is None:
            self._hold()
        assert self._held is not None  # noqa: S101 - held just above
        # The matrix is not needed any more but by the caller who lent it: standardise in its place.
        standard = standardise(self._held, bulk)
        if not self._borrowed:
            self._held = None
        return HeldEntries(standard, shape, _largest(standard))


@dataclass(frozen=True)
class _Again:
    """An iterable that starts over each time it is asked."""

    start: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.start()


def _in_units(measured: TrapMeasurement, bulk: Bulk) -> NDArray[np.float64] | None:
    return None if measured.spectrum is None else measured.spectrum * bulk.variance


def _largest(entries: Floats) -> float:
    return max(float(entries.max()), -float(entries.min()))


def _lower_median(counts: list[int]) -> int:
    return sorted(counts)[(len(counts) - 1) // 2] if counts else 0
