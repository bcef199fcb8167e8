"""From one weight matrix to its part of the report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.audit.timing import READ, Stages, TimedBackend
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import MatrixError
from llmtrap.packed import Packed
from llmtrap.report import document
from llmtrap.rounding import ALPHA_BITS, rounding_words
from llmtrap.spectra import AnalysisSettings, Esd, LogHistogram, MatrixAnalysis, TrapAnalysis, analyse, log_histogram
from llmtrap.spectra.backends import Backend
from llmtrap.spectra.noise import NoiseComparison, Quantiles
from llmtrap.spectra.single_pass import FirstPass
from llmtrap.spectra.tracy_widom import survival
from llmtrap.spectra.traps import edge_z

Floats = NDArray[np.floating]

# Small enough that a block is still in the cache when its entries are summed and copied.
BLOCK_ENTRIES = 1 << 20


@dataclass(frozen=True)
class StoredReader:
    """A weight matrix and its bytes, as the spectra read it."""

    matrix: WeightMatrix
    source: Source
    stages: Stages

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    def blocks(self) -> Iterator[Floats]:
        """Decoded blocks of rows."""
        return self.stages.reading(self.matrix.blocks(self.source, BLOCK_ENTRIES))

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Counts of the stored codes, where the encoding has few of them."""
        with self.stages.of(READ):
            return self.matrix.histogram(self.source)

    def packed_blocks(self) -> Iterator[Packed] | None:
        """Blocks of rows as they are stored, in the pieces in which the source was told to fetch them."""
        with self.stages.of(READ):
            blocks = self.matrix.packed_blocks(self.source)
        return None if blocks is None else self.stages.reading(blocks)


def measure_matrix(
    matrix: WeightMatrix,
    source: Source,
    settings: AnalysisSettings,
    backend: Backend,
    stages: Stages | None = None,
    first: FirstPass | None = None,
) -> document.Matrix:
    """Read, decode and measure one matrix; `stages` learns where the time went.

    One that was read already, by blocks and to its end, comes with what that pass gave (`first`).

    Raises:
        LlmtrapError: its bytes cannot be read or decoded, or its numbers leave float64.
    """
    stages = stages or Stages()
    reader = StoredReader(matrix, source, stages)
    with stages.clock():
        analysis = analyse(reader, settings, matrix_id=matrix.id, backend=TimedBackend(backend, stages), first=first)
    return describe(matrix, analysis, stages.total)


def describe(matrix: WeightMatrix, analysis: MatrixAnalysis, seconds: float) -> document.Matrix:
    """Put an analysis into the document's words."""
    bad = analysis.non_finite
    esd = analysis.esd
    if esd is not None and not (math.isfinite(esd.total) and math.isfinite(esd.largest)):
        raise MatrixError(
            "the squares of its entries leave the range of float64",
            tensor=matrix.tensor,
            remedy="Rescale the tensor: no network computes with such weights",
        )
    return document.Matrix(
        id=matrix.id,
        tensor=matrix.tensor,
        part=matrix.part,
        layer=matrix.layer,
        role=matrix.role,
        expert=matrix.expert,
        shape=matrix.shape,
        encoding=matrix.encoding,
        bits=round(matrix.bits, 3),
        rounding=rounding_words(matrix.bits, matrix.encoding),
        aliases=matrix.aliases,
        alpha=None if esd is None else _alpha(esd, analysis, matrix.bits),
        spectrum=None if esd is None else _spectrum(esd, analysis.noise),
        weightwatcher=None if analysis.columns is None else document.WeightWatcherColumns(**asdict(analysis.columns)),
        traps=None if analysis.traps is None else _traps(analysis.traps, matrix.shape),
        non_finite=None if bad is None else document.NonFinite(**asdict(bad)),
        all_zero=analysis.moments is not None and analysis.moments.minimum == analysis.moments.maximum == 0,
        seconds=round(seconds, 4),
    )


def in_stored_tensor(found: document.Matrix, matrix: WeightMatrix) -> document.Matrix:
    """The same, with the places of entries in the stored tensor where the matrix is a part of a fused one."""
    if matrix.rows is None and matrix.columns is None:
        return found
    bad, traps = found.non_finite, found.traps
    if bad is not None:
        row, column = _place(matrix, bad.row, bad.column)
        bad = bad.model_copy(update={"row": row, "column": column})
    if traps is not None:
        moved = []
        for trap in traps.found:
            if trap.cause.row is not None and trap.cause.column is not None:
                row, column = _place(matrix, trap.cause.row, trap.cause.column)
                cause = trap.cause.model_copy(update={"row": row, "column": column})
                moved.append(trap.model_copy(update={"cause": cause}))
            else:
                moved.append(trap)
        traps = traps.model_copy(update={"found": tuple(moved)})
    return found.model_copy(update={"non_finite": bad, "traps": traps})


def _place(matrix: WeightMatrix, row: int, column: int) -> tuple[int, int]:
    """Where an entry of a part stands in the fused matrix."""
    if matrix.rows is not None:
        (row,) = matrix.rows.indices(row, row + 1).tolist()
    if matrix.columns is not None:
        (column,) = matrix.columns.indices(column, column + 1).tolist()
    return row, column


def _alpha(esd: Esd, analysis: MatrixAnalysis, bits: float) -> document.Alpha:
    fit, noise = esd.fit, analysis.noise
    beside = None if noise is None else _range(noise.noise.alpha)
    if fit is None:
        return document.Alpha(
            value=None, sigma=None, xmin=None, ks=None, tail=0, band=None, reliable=False,
            reason="no tail to fit: fewer than two distinct eigenvalues", noise=beside,
        )  # fmt: skip
    band: document.Band | None = fit.band
    reason = fit.reason
    if bits < ALPHA_BITS:
        band, reason = None, f"stored in {bits:.2g} bits a weight: α is that of the rounded matrix"
    elif noise is not None and noise.explains:
        # Not a matter of the fit: the whole spectrum is noise's, however well a tail can be fitted to it.
        band = "random"
    low, high = analysis.alpha_interval or (None, None)
    return document.Alpha(
        value=fit.alpha, sigma=fit.sigma, xmin=fit.xmin, ks=fit.ks, tail=fit.tail, band=band, reliable=reason is None,
        reason=reason, low=low, high=high, noise=beside,
    )  # fmt: skip


def _range(quantiles: Quantiles) -> document.NoiseRange:
    return document.NoiseRange(low=quantiles.low, median=quantiles.median, high=quantiles.high)


def _beside_noise(noise: NoiseComparison, frobenius_norm: float) -> document.SpectrumNoise:
    rank = noise.noise.stable_rank
    # ‖W‖_F² over the stable rank is σ₁²: the greater the one, the less the other.
    norms = (frobenius_norm / math.sqrt(value) for value in (rank.high, rank.median, rank.low))
    return document.SpectrumNoise(
        spectral_norm=_range(Quantiles(*norms)),
        stable_rank=_range(rank),
        entropy=_range(noise.noise.entropy),
        distance=noise.distance,
        limit=noise.limit,
        spikes=noise.spikes,
    )


def _spectrum(esd: Esd, noise: NoiseComparison | None) -> document.Spectrum:
    largest, total = esd.largest, esd.total
    log_norm = math.log10(largest) if largest > 0 else None
    weighted = esd.fit.alpha * log_norm if esd.fit is not None and log_norm is not None else None
    return document.Spectrum(
        spectral_norm=math.sqrt(largest),
        frobenius_norm=math.sqrt(total),
        stable_rank=total / largest if largest > 0 else 0.0,
        hard_rank=esd.hard_rank,
        entropy=esd.entropy,
        alpha_weighted=weighted,
        log10_spectral_norm=log_norm / 2 if log_norm is not None else None,
        rank_deficient=esd.rank_deficient,
        precision=esd.precision,
        histogram=_histogram(log_histogram(esd.eigenvalues)),
        noise=None if noise is None else _beside_noise(noise, math.sqrt(total)),
    )


def _traps(traps: TrapAnalysis, shape: tuple[int, int]) -> document.Traps:
    certificate, bulk = traps.certificate, traps.bulk
    counts, centred = [c.count for c in traps.counts], [c.centred for c in traps.counts]
    tops = sorted(c.top_z for c in traps.counts) if traps.shuffles else []
    histogram = _histogram(traps.shuffled_histogram)
    shuffled = None
    if histogram is not None and traps.bulk_fit is not None:
        shuffled = document.Shuffled(ks=traps.bulk_fit.ks, p_value=traps.bulk_fit.p_value, histogram=histogram)
    return document.Traps(
        count=traps.count,
        centred=traps.centred,
        mean_shift=traps.mean_shift,
        low=min(counts, default=0),
        high=max(counts, default=0),
        centred_low=min(centred, default=0),
        centred_high=max(centred, default=0),
        reliable=traps.reliable,
        kurtosis=certificate.kurtosis,
        max_sigmas=certificate.max_sigmas,
        method=traps.method,
        rule=traps.rule,
        entry_ratio=certificate.entry_ratio,
        mean_ratio=certificate.mean_ratio,
        mean=bulk.mean,
        bulk_variance=bulk.variance,
        edge=traps.edge,
        edge_z=None if traps.edge is None else edge_z(traps.rule, shape),
        top_z=traps.counts[0].top_z if traps.counts else None,
        top_z_low=tops[0] if tops else None,
        top_z_high=tops[-1] if tops else None,
        shuffles=traps.shuffles,
        found=tuple(
            document.Trap(
                eigenvalue=trap.eigenvalue,
                z=trap.z,
                strength=trap.strength,
                cause=document.Cause(
                    kind=trap.cause.kind,
                    row=trap.cause.row,
                    column=trap.cause.column,
                    value=trap.cause.value,
                    sigmas=trap.cause.sigmas,
                ),
                p_value=survival(trap.z),
            )
            for trap in traps.found
        ),
        shuffled=shuffled,
    )


def _histogram(histogram: LogHistogram | None) -> document.Histogram | None:
    return None if histogram is None else document.Histogram(edges=histogram.edges, counts=histogram.counts)
