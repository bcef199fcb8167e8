"""Everything llmtrap measures of one matrix: entries, spectrum, α, certificate, traps and their causes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import MatrixError
from llmtrap.spectra.backends import Array, Backend, NumpyBackend
from llmtrap.spectra.causes import FoundTrap, find_causes, suspect_distance
from llmtrap.spectra.certificate import (
    Bulk,
    Certificate,
    Exceedances,
    Inside,
    bulk_of,
    bulk_of_histogram,
    certify,
    exceedances,
)
from llmtrap.spectra.entries import CountedEntries, Entries, HeldEntries, standardise
from llmtrap.spectra.esd import Esd, esd_in_steps
from llmtrap.spectra.moments import (
    MomentPass,
    Moments,
    NonFiniteError,
    OutOfRangeError,
    moments_of_histogram,
    power_of_two_scale,
)
from llmtrap.spectra.on_device import OnDevice
from llmtrap.spectra.prediction import Split, predict_traps
from llmtrap.spectra.readers import (
    ArrayReader,
    Histogram,
    MatrixReader,
    NonFiniteEntries,
    as_floats,
    locate_non_finite,
)
from llmtrap.spectra.results import AnalysisSettings, MatrixAnalysis, TrapAnalysis
from llmtrap.spectra.shuffle import TABLE_FROM
from llmtrap.spectra.single_pass import SinglePass, ValueCounter
from llmtrap.spectra.together import Steps, together
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import (
    RELIABLE_FROM_SIDE,
    ShuffleCount,
    SpectrumWanted,
    TrapMeasurement,
    TrapSearch,
    edge_z,
    measure_traps,
)

Floats = NDArray[np.floating]

# Entries held in memory at once (200 MB of float32); larger matrices are read by blocks, once where that is enough.
HELD_ENTRIES = 50_000_000
# A float32 entry may be standardised to a little more than its size in float64.
ROUNDING = 1e-5


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
    reader = ArrayReader(as_floats(matrix)) if isinstance(matrix, np.ndarray) else matrix
    chosen = backend or NumpyBackend()
    steps = analyse_in_steps(reader, settings or AnalysisSettings(), matrix_id, chosen)
    (analysis,) = together([steps], chosen.eigenvalues_of)
    return analysis


def analyse_in_steps(
    reader: MatrixReader, settings: AnalysisSettings, matrix_id: str, backend: Backend
) -> Steps[MatrixAnalysis]:
    """The same in steps, for several matrices `together`: nothing is read before the first step."""
    run = _Analysis(reader, settings, _search(matrix_id, settings), backend)
    try:
        return (yield from run.result())
    except NonFiniteError:
        return MatrixAnalysis(reader.shape, None, None, None, run.non_finite())
    except OutOfRangeError:
        raise MatrixError(
            "the squares of its entries leave the range of float64",
            remedy="Rescale the tensor: no network computes with such weights",
        ) from None


class _Analysis:
    """One matrix's way through the measurements; holds its entries where they fit."""

    def __init__(self, reader: MatrixReader, settings: AnalysisSettings, search: TrapSearch, backend: Backend):
        self._reader = reader
        self._settings = settings
        self._search = search
        self._backend = backend
        self._shape = reader.shape
        self._held: Floats | None = None
        self._passed: SinglePass | None = None
        self._counted: Histogram | None = None
        self._non_finite: NonFiniteEntries | None = None
        self._borrowed = isinstance(reader, ArrayReader)
        packed = None if backend.decoder is None else reader.packed_blocks()
        self._device: OnDevice | None = None
        if backend.decoder is not None and packed is not None:
            self._device = OnDevice(self._shape, packed, reader.packed_blocks, backend.decoder)

    def result(self) -> Steps[MatrixAnalysis]:
        moments = self._moments()
        esd = (yield from self._esd(moments)) if self._settings.alpha else None
        return MatrixAnalysis(self._shape, moments, esd, self._traps(moments), None)

    def non_finite(self) -> NonFiniteEntries:
        """Where the entries are that are no numbers."""
        return self._non_finite or locate_non_finite(self._read())

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

    def _fits(self) -> bool:
        # A matrix wider than tall has its Gram matrix formed in one go, so it must be held whatever its size.
        rows, columns = self._shape
        return rows * columns <= HELD_ENTRIES or rows < columns

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
                held = np.empty(self._shape, dtype=block.dtype)
            held[top : top + block.shape[0]] = block
            top += block.shape[0]
        self._held = held if held is not None else np.zeros(self._shape, dtype=np.float32)
        return sums.finish([self._held])

    def _pass_once(self) -> Moments:
        """Read a matrix that is not held, and gather what it would be read again for."""
        sums = MomentPass()
        self._passed = SinglePass(self._shape, self._backend, gram=self._settings.alpha)
        for block in self._summed(sums):
            self._passed.add(block)
        self._counted = self._passed.histogram
        return sums.finish(_Again(self._read)) if self._counted is None else moments_of_histogram(*self._counted)

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

    def _blocks(self) -> Iterator[Floats]:
        """The matrix once more: held from now on where it fits, since a shuffle will need it too."""
        if self._held is None and self._fits() and (self._settings.traps != "certify" or self._device is not None):
            self._hold()
        if self._held is not None:
            yield self._held
        else:
            yield from self._read()

    def _arrays(self) -> Iterator[Array]:
        return map(self._backend.from_host, self._blocks())

    # -- measuring ----------------------------------------------------------------------------------------------

    def _esd(self, moments: Moments) -> Steps[Esd]:
        scale = power_of_two_scale(max(abs(moments.minimum), abs(moments.maximum)))
        if self._device is not None:
            return esd_in_steps(self._device.arrays, self._shape, self._backend, scale=scale)
        double, gram = self._held is not None and self._held.dtype == np.float64, None
        if self._passed is not None:
            double, gram, self._passed.gram = self._passed.double, self._passed.gram, None
        return esd_in_steps(self._arrays, self._shape, self._backend, scale=scale, double=double, gram=gram)

    def _bulk(self, moments: Moments) -> Bulk:
        if self._counted is not None:
            return bulk_of_histogram(self._shape, *self._counted)
        return bulk_of(self._shape, moments, self._blocks, self._beyond)

    def _beyond(self, centre: float, distance: float) -> Exceedances:
        kept = None if self._passed is None else self._passed.farthest.beyond(centre, distance)
        return exceedances(self._blocks(), centre, distance) if kept is None else kept

    def _traps(self, moments: Moments) -> TrapAnalysis:
        bulk = self._bulk(moments)
        certificate = certify(self._shape, moments, bulk)
        rule, wanted = self._settings.rule, self._settings.traps
        law, z_edge = EdgeLaw.of(*self._shape), edge_z(rule, self._shape)
        edge = law.eigenvalue(z_edge) * bulk.variance if bulk.variance > 0 else None
        decided = partial(
            TrapAnalysis,
            rule=rule, certificate=certificate, bulk=bulk, edge=edge, reliable=min(self._shape) >= RELIABLE_FROM_SIDE,
        )  # fmt: skip
        if bulk.variance == 0 or (certificate.certified and wanted != "measure"):
            return decided("certified")
        if wanted == "certify" or (wanted == "auto" and not self._settings.alpha):
            split = Split(self._rest, self._beyond)
            predicted = predict_traps(self._shape, bulk, certificate, z_edge, split)
            if predicted:
                return decided("predicted", counts=(_count_of(predicted),), found=predicted)
        if wanted == "certify":
            return decided("undecided")
        far = self._suspects(bulk, certificate)
        entries = self._entries(bulk)
        measured = measure_traps(entries, bulk, self._search, self._backend)
        found: tuple[FoundTrap, ...] = ()
        if measured.first.count.count or measured.first.count.centred:
            found = find_causes(entries, measured, far, bulk, self._search, self._backend)
        return decided(
            "measured",
            counts=measured.counts,
            found=found,
            bulk_fit=measured.bulk_fit,
            spectrum=_in_units(measured, bulk),
        )

    def _rest(self, centre: float, distance: float) -> Moments:
        """Moments of the entries within a distance of a centre."""
        if self._counted is not None:
            values, counts = self._counted
            inside = np.abs(values - centre) <= distance
            return moments_of_histogram(values[inside], counts[inside])
        sums, rest = MomentPass(), Inside(self._blocks, centre, distance)
        for block in rest:
            sums.add(block)
        return sums.finish(rest)

    def _suspects(self, bulk: Bulk, certificate: Certificate) -> Exceedances:
        """The entries that may turn out to be a trap's cause, with their places."""
        distance = suspect_distance(self._shape, bulk)
        if certificate.max_sigmas * bulk.deviation < distance * (1 - ROUNDING):
            return exceedances([], bulk.mean, distance)
        return self._beyond(bulk.mean, distance)

    def _entries(self, bulk: Bulk) -> Entries:
        shape = (max(self._shape), min(self._shape))
        if self._counted is None and shape[0] * shape[1] >= TABLE_FROM:
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

    def _release(self) -> None:
        """Let go of the matrix, which only the caller who lent it needs from now on."""
        if not self._borrowed:
            self._held = None

    def _count(self) -> Histogram | None:
        """Count the values of a matrix that is here, held or on a device: it is not read again for it."""
        counter = ValueCounter()
        if self._held is not None:
            counter.add(self._held)
        elif self._device is not None:
            for block in self._read():
                counter.add(block)
        else:
            return None  # it was counted as it was read, or has too many values
        return counter.histogram


@dataclass(frozen=True)
class _Again:
    """An iterable that starts over each time it is asked."""

    start: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.start()


def _search(matrix_id: str, settings: AnalysisSettings) -> TrapSearch:
    # The shuffled spectrum is drawn beside the matrix' own: without α there is none, and the top is enough.
    spectrum: SpectrumWanted = "trapped" if settings.alpha else "never"
    if settings.traps == "measure":
        spectrum = "always"
    return TrapSearch(matrix_id, settings.seed, settings.rule, settings.shuffles, spectrum)


def _count_of(predicted: tuple[FoundTrap, ...]) -> ShuffleCount:
    """What every shuffle shows."""
    centred = sum(trap.cause.kind != "mean_shift" for trap in predicted)
    return ShuffleCount(len(predicted), centred, max(trap.z for trap in predicted))


def _in_units(measured: TrapMeasurement, bulk: Bulk) -> NDArray[np.float64] | None:
    return None if measured.spectrum is None else measured.spectrum * bulk.variance


def _largest(entries: Floats) -> float:
    return max(float(entries.max()), -float(entries.min()))
