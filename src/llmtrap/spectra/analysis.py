"""Everything llmtrap measures of one matrix: entries, spectrum, α, certificate, traps and their causes."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import MatrixError
from llmtrap.spectra.backends import Backend, NumpyBackend
from llmtrap.spectra.causes import find_causes, suspect_distance
from llmtrap.spectra.certificate import Bulk, Certificate, Exceedances, certify, exceedances
from llmtrap.spectra.esd import Esd, compute_esd
from llmtrap.spectra.matrix_data import MatrixData
from llmtrap.spectra.measured import Trap
from llmtrap.spectra.moments import Moments, NonFiniteError, OutOfRangeError, power_of_two_scale
from llmtrap.spectra.noise import NoiseComparison, compare_with_noise
from llmtrap.spectra.power_law import interval_without_largest
from llmtrap.spectra.prediction import predict_traps
from llmtrap.spectra.readers import ArrayReader, MatrixReader, as_floats
from llmtrap.spectra.results import MatrixAnalysis, TrapAnalysis
from llmtrap.spectra.settings import AnalysisSettings
from llmtrap.spectra.single_pass import FirstPass
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
from llmtrap.spectra.weightwatcher_columns import weightwatcher_columns

Floats = NDArray[np.floating]

# A float32 entry may be standardised to a little more than its size in float64.
ROUNDING = 1e-5


def analyse(
    matrix: MatrixReader | Floats,
    settings: AnalysisSettings | None = None,
    *,
    matrix_id: str = "",
    backend: Backend | None = None,
    first: FirstPass | None = None,
) -> MatrixAnalysis:
    """Measure one matrix.

    Args:
        matrix: an array (other than float32 and float64 are converted), or a reader for one that need not be in memory.
        settings: what to measure.
        matrix_id: names the matrix for the seeds of its shuffles.
        backend: where to compute; NumPy by default.
        first: the only pass over a matrix too large to hold, where somebody else has made it.

    Raises:
        MatrixError: the squares of the entries leave float64 (the largest is beyond 10^±140).
    """
    reader = ArrayReader(as_floats(matrix)) if isinstance(matrix, np.ndarray) else matrix
    settings, backend = settings or AnalysisSettings(), backend or NumpyBackend()
    data = MatrixData(reader, settings, backend, first)
    try:
        return _Analysis(data, settings, _search(matrix_id, settings), backend).result()
    except NonFiniteError:
        return MatrixAnalysis(reader.shape, None, None, None, data.non_finite())
    except OutOfRangeError:
        raise MatrixError(
            "the squares of its entries leave the range of float64",
            remedy="Rescale the tensor: no network computes with such weights",
        ) from None


class _Analysis:
    """One matrix's way through the measurements."""

    def __init__(self, data: MatrixData, settings: AnalysisSettings, search: TrapSearch, backend: Backend):
        self._data = data
        self._settings = settings
        self._search = search
        self._backend = backend

    def result(self) -> MatrixAnalysis:
        moments = self._data.moments()
        esd = self._esd(moments) if self._settings.alpha else None
        traps = self._traps(moments)
        if esd is None:
            return MatrixAnalysis(self._data.shape, moments, None, traps, None)
        fit = esd.fit
        return MatrixAnalysis(
            self._data.shape, moments, esd, traps, None,
            noise=self._beside_noise(esd, traps),
            alpha_interval=None if fit is None else interval_without_largest(esd.eigenvalues, fit, traps.count),
            columns=weightwatcher_columns(esd, self._data.shape, traps.bulk.variance, traps.spectrum),
        )  # fmt: skip

    def _beside_noise(self, esd: Esd, traps: TrapAnalysis) -> NoiseComparison | None:
        shape, rule = self._data.shape, self._settings.rule
        # Where nobody has looked for traps, what lies beyond the edge may all be theirs.
        by_entries = min(shape) if traps.method == "undecided" else traps.most
        return compare_with_noise(esd.eigenvalues, shape, traps.bulk.variance, edge_z(rule, shape), by_entries)

    def _esd(self, moments: Moments) -> Esd:
        scale = power_of_two_scale(max(abs(moments.minimum), abs(moments.maximum)))
        double, gram = self._data.formed_gram()
        data = self._data
        return compute_esd(data.arrays, data.shape, self._backend, scale=scale, double=double, gram=gram)

    def _traps(self, moments: Moments) -> TrapAnalysis:
        data, shape = self._data, self._data.shape
        bulk = data.bulk(moments)
        certificate = certify(shape, moments, bulk)
        rule, wanted = self._settings.rule, self._settings.traps
        law, z_edge = EdgeLaw.of(*shape), edge_z(rule, shape)
        edge = law.eigenvalue(z_edge) * bulk.variance if bulk.variance > 0 else None
        decided = partial(
            TrapAnalysis,
            rule=rule, certificate=certificate, bulk=bulk, edge=edge, reliable=min(shape) >= RELIABLE_FROM_SIDE,
        )  # fmt: skip
        if bulk.variance == 0 or (certificate.certified and wanted != "measure"):
            return decided("certified")
        if wanted == "certify" or (wanted == "auto" and not self._settings.alpha):
            predicted = predict_traps(shape, bulk, certificate, z_edge, data)
            if predicted:
                return decided("predicted", counts=(_count_of(predicted),), found=predicted)
        if wanted == "certify":
            return decided("undecided")
        far = self._suspects(bulk, certificate)
        entries = data.entries(bulk)
        measured = measure_traps(entries, bulk, self._search, self._backend)
        found: tuple[Trap, ...] = ()
        if measured.first.count.count or measured.first.count.centred:
            found = find_causes(entries, measured, far, bulk, self._search, self._backend)
        return decided(
            "measured",
            counts=measured.counts,
            found=found,
            bulk_fit=measured.bulk_fit,
            spectrum=_in_units(measured, bulk),
        )

    def _suspects(self, bulk: Bulk, certificate: Certificate) -> Exceedances:
        """The entries that may turn out to be a trap's cause, with their places."""
        distance = suspect_distance(self._data.shape, bulk)
        if certificate.max_sigmas * bulk.deviation < distance * (1 - ROUNDING):
            return exceedances([], bulk.mean, distance)
        return self._data.beyond(bulk.mean, distance)


def _search(matrix_id: str, settings: AnalysisSettings) -> TrapSearch:
    # The shuffled spectrum is drawn beside the matrix' own: without α there is none, and the top is enough.
    spectrum: SpectrumWanted = "trapped" if settings.alpha else "never"
    if settings.traps == "measure":
        spectrum = "always"
    return TrapSearch(
        matrix_id, settings.seed, settings.rule, settings.shuffles, spectrum, settings.paired, settings.in_doubt
    )


def _count_of(predicted: tuple[Trap, ...]) -> ShuffleCount:
    """What every shuffle shows."""
    centred = sum(trap.cause.kind != "mean_shift" for trap in predicted)
    top = max(trap.z for trap in predicted)
    of_centred = max((trap.z for trap in predicted if trap.cause.kind != "mean_shift"), default=top)
    return ShuffleCount(len(predicted), centred, top, of_centred)


def _in_units(measured: TrapMeasurement, bulk: Bulk) -> NDArray[np.float64] | None:
    return None if measured.spectrum is None else measured.spectrum * bulk.variance
