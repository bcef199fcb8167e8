"""From an analysis, which has arrays, to the numbers that are kept of it."""

from __future__ import annotations

import math

from llmtrap.errors import MatrixError
from llmtrap.spectra.esd import Esd, log_histogram
from llmtrap.spectra.measured import Alpha, Band, Measured, NoiseRange, Shuffled, Spectrum, SpectrumNoise, Traps
from llmtrap.spectra.noise import NoiseComparison
from llmtrap.spectra.results import MatrixAnalysis, TrapAnalysis
from llmtrap.spectra.traps import edge_z


def summarise(analysis: MatrixAnalysis) -> Measured:
    """The numbers of an analysis.

    Raises:
        MatrixError: they leave the range of float64.
    """
    esd, moments, traps = analysis.esd, analysis.moments, analysis.traps
    if esd is not None and not (math.isfinite(esd.total) and math.isfinite(esd.largest)):
        raise MatrixError(
            "the squares of its entries leave the range of float64",
            remedy="Rescale the tensor: no network computes with such weights",
        )
    return Measured(
        alpha=None if esd is None else _alpha(esd, analysis),
        spectrum=None if esd is None else _spectrum(esd, analysis.noise),
        weightwatcher=analysis.columns,
        traps=None if traps is None else _traps(traps, analysis.shape),
        non_finite=analysis.non_finite,
        all_zero=moments is not None and moments.minimum == moments.maximum == 0,
    )


def _alpha(esd: Esd, analysis: MatrixAnalysis) -> Alpha:
    fit, noise = esd.fit, analysis.noise
    beside = None if noise is None else noise.noise.alpha
    if fit is None:
        return Alpha(
            value=None, sigma=None, xmin=None, ks=None, tail=0, band=None, reliable=False,
            reason="no tail to fit: fewer than two distinct eigenvalues", noise=beside,
        )  # fmt: skip
    # Not a matter of the fit: the whole spectrum may be noise's, however well a tail can be fitted to it.
    band: Band | None = "random" if noise is not None and noise.explains else fit.band
    low, high = analysis.alpha_interval or (None, None)
    return Alpha(
        value=fit.alpha, sigma=fit.sigma, xmin=fit.xmin, ks=fit.ks, tail=fit.tail, band=band, reliable=fit.reliable,
        reason=fit.reason, low=low, high=high, noise=beside,
    )  # fmt: skip


def _beside_noise(noise: NoiseComparison, frobenius_norm: float) -> SpectrumNoise:
    rank = noise.noise.stable_rank
    # ‖W‖_F² over the stable rank is σ₁²: the greater the one, the less the other.
    low, median, high = (frobenius_norm / math.sqrt(value) for value in (rank.high, rank.median, rank.low))
    return SpectrumNoise(
        spectral_norm=NoiseRange(low=low, median=median, high=high),
        stable_rank=rank,
        entropy=noise.noise.entropy,
        distance=noise.distance,
        limit=noise.limit,
        spikes=noise.spikes,
    )


def _spectrum(esd: Esd, noise: NoiseComparison | None) -> Spectrum:
    largest, total = esd.largest, esd.total
    log_norm = math.log10(largest) if largest > 0 else None
    weighted = esd.fit.alpha * log_norm if esd.fit is not None and log_norm is not None else None
    return Spectrum(
        spectral_norm=math.sqrt(largest),
        frobenius_norm=math.sqrt(total),
        stable_rank=total / largest if largest > 0 else 0.0,
        hard_rank=esd.hard_rank,
        entropy=esd.entropy,
        alpha_weighted=weighted,
        log10_spectral_norm=log_norm / 2 if log_norm is not None else None,
        rank_deficient=esd.rank_deficient,
        precision=esd.precision,
        histogram=log_histogram(esd.eigenvalues),
        noise=None if noise is None else _beside_noise(noise, math.sqrt(total)),
    )


def _traps(traps: TrapAnalysis, shape: tuple[int, int]) -> Traps:
    certificate, bulk = traps.certificate, traps.bulk
    counts, centred = [c.count for c in traps.counts], [c.centred for c in traps.counts]
    tops = sorted(c.top_z for c in traps.counts) if traps.shuffles else []
    histogram = None if traps.spectrum is None else log_histogram(traps.spectrum)
    shuffled = None
    if histogram is not None and traps.bulk_fit is not None:
        shuffled = Shuffled(ks=traps.bulk_fit.ks, p_value=traps.bulk_fit.p_value, histogram=histogram)
    return Traps(
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
        found=traps.found,
        shuffled=shuffled,
    )
