"""Numbers that users of WeightWatcher know by its names, from eigenvalues that are there already.

Sources: WeightWatcher 0.7.7 (`apply_norm_metrics`, `mp_fit`, `apply_random_esd`, `apply_detX`); for the unit
determinant of the tail the SETOL paper, Martin and Hinrichs 2025, arXiv 2507.17912. Where these differ from what
WeightWatcher computes, docs/from_weightwatcher.md says so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.esd import Esd
from llmtrap.spectra.marchenko_pastur import MarchenkoPastur
from llmtrap.spectra.measured import WeightWatcherColumns

Floats = NDArray[np.float64]


def weightwatcher_columns(
    esd: Esd, shape: tuple[int, int], variance: float, shuffled: Floats | None
) -> WeightWatcherColumns:
    """Compute the columns.

    Args:
        esd: the matrix's own spectrum.
        shape: rows and columns.
        variance: of the bulk of the entries, which says where the Marchenko–Pastur bulk ends.
        shuffled: eigenvalues of the first shuffle, where there are any.
    """
    tail = None if esd.fit is None else esd.fit.tail
    determinant = unit_determinant(esd.eigenvalues)
    return WeightWatcherColumns(
        log_norm=math.log10(esd.total) if esd.total > 0 else None,
        log_alpha_norm=None if esd.fit is None else _log_alpha_norm(esd.eigenvalues, esd.fit.alpha),
        mp_softrank=_soft_rank(esd, shape, variance),
        rand_distance=None if shuffled is None else spectral_distance(esd.eigenvalues, shuffled),
        num_pl_spikes=tail,
        detX_num=determinant,
        ERG_gap=None if determinant is None or tail is None else determinant - tail,
    )


def unit_determinant(eigenvalues: Floats) -> int | None:
    """How many of the largest eigenvalues, scaled to a mean of 1, have a product that just falls below 1.

    In a layer that SETOL calls ideal they are the fitted tail. None where the eigenvalues do not differ.
    """
    values = np.sort(eigenvalues)[::-1]
    if values.size < 2 or not values[0] > values[-1]:
        return None
    with np.errstate(divide="ignore"):
        products = np.cumsum(np.log(values / values.mean()))
    return int(np.argmax(products < 0)) + 1 if bool((products < 0).any()) else values.size


def spectral_distance(eigenvalues: Floats, others: Floats) -> float | None:
    """√ of the Jensen–Shannon divergence, in nats, of two spectra as shares of their sums, in order of size."""
    p, q = np.sort(eigenvalues), np.sort(others)
    if p.size != q.size or not (p.sum() > 0 and q.sum() > 0):
        return None
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return math.sqrt(max(0.0, (_divergence(p, middle) + _divergence(q, middle)) / 2))


def _divergence(p: Floats, q: Floats) -> float:
    present = p > 0
    return float((p[present] * np.log(p[present] / q[present])).sum())


def _log_alpha_norm(eigenvalues: Floats, alpha: float) -> float | None:
    positive = np.log(eigenvalues[eigenvalues > 0])
    if positive.size == 0:
        return None
    # λ^α overflows float64 for ordinary exponents: the largest is taken out first.
    powers = alpha * positive
    largest = float(powers.max())
    return (largest + math.log(float(np.exp(powers - largest).sum()))) / math.log(10)


def _soft_rank(esd: Esd, shape: tuple[int, int], variance: float) -> float | None:
    if not esd.largest > 0:
        return None
    n, m = max(shape), min(shape)
    return n * MarchenkoPastur(variance, m / n).upper / esd.largest
