"""Which matrices must have a trap whatever the shuffle, and exactly which: the certificate's other half.

A few entries far beyond the limit, or a mean far beyond it, make their eigenvalues in every order. Let R be the
shuffled matrix without its far entries, or without its mean: the rest. Then

- there are no more traps than far entries: their matrix has rank k, so by Weyl's inequality the (k+1)-th singular value
  of the whole is at most the first of the rest, and the rest is certified to have none beyond the edge;
- there are no fewer where each is large enough: on the k columns that hold the far entries the Gram matrix is at least
  (a − 6(k−1))² + N(1 − 6k√(κ/N)) in units of s², a being the smallest |w − m|/s and κ the rest's kurtosis, for sums
  of N entries stay within six of their standard deviations; by Cauchy's interlacing k eigenvalues are at least that.

For a mean the same holds with the all-ones vector and a² = m²NM/s². Where an eigenvalue stands is Benaych-Georges &
Nadakuditi's formula (2012).
"""

from __future__ import annotations

import math
from typing import Protocol

from llmtrap.spectra.causes import described
from llmtrap.spectra.certificate import (
    ENTRY_RATIO_LIMIT,
    MEAN_RATIO_LIMIT,
    Bulk,
    Certificate,
    Exceedances,
    entry_limit,
    makes_no_trap,
    predicted_outlier,
)
from llmtrap.spectra.entries import standardise
from llmtrap.spectra.measured import Cause, Trap
from llmtrap.spectra.moments import Moments
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import NEAR_EDGE, RELIABLE_FROM_SIDE

# Two far entries in one row or column make one eigenvalue: with so great a chance of it the number is left to shuffles.
MOST_LIKELY_TOGETHER = 0.01
# Standard deviations that a sum of N entries is allowed.
DEVIATIONS = 6.0
# The sum of squares of N row sums scatters like that of entries with a Gaussian's kurtosis, whatever the entries'.
GAUSSIAN_KURTOSIS = 3.0


class EntrySplit(Protocol):
    """A matrix as the prediction needs to read it: its far entries, and the rest."""

    def rest(self, centre: float, distance: float) -> Moments:
        """Moments of the entries with |w − centre| ≤ distance."""
        ...

    def beyond(self, centre: float, distance: float) -> Exceedances:
        """The other entries, with their places."""
        ...


def predict_traps(
    shape: tuple[int, int], bulk: Bulk, certificate: Certificate, edge_z: float, matrix: EntrySplit
) -> tuple[Trap, ...]:
    """The traps that every shuffle must show, strongest first; none where that cannot be told.

    Args:
        shape: rows and columns.
        bulk: the bulk's mean and variance.
        certificate: of the whole matrix, not certified.
        edge_z: the edge of the rule, in Tracy–Widom units.
        matrix: is read once more, as far as needed.
    """
    if min(shape) < RELIABLE_FROM_SIDE or bulk.variance == 0:
        return ()
    if certificate.entry_ratio >= ENTRY_RATIO_LIMIT:
        if certificate.mean_ratio >= MEAN_RATIO_LIMIT:
            return ()  # each would have to be proved beside the other
        return _of_entries(shape, bulk, edge_z, matrix)
    return _of_mean(shape, bulk, certificate, edge_z)


def most_far(shape: tuple[int, int]) -> int:
    """So many far entries hardly ever share a row or a column: k²/2 · (1/N + 1/M) stays small."""
    n, m = max(shape), min(shape)
    return math.floor(math.sqrt(2 * MOST_LIKELY_TOGETHER / (1 / n + 1 / m)))


def _of_entries(shape: tuple[int, int], bulk: Bulk, edge_z: float, matrix: EntrySplit) -> tuple[Trap, ...]:
    distance = math.sqrt(ENTRY_RATIO_LIMIT) * entry_limit(*shape) * bulk.deviation
    rest = matrix.rest(bulk.mean, distance)
    size = shape[0] * shape[1] - rest.count
    if not 1 <= size <= most_far(shape) or not makes_no_trap(shape, rest):
        return ()
    far = matrix.beyond(bulk.mean, distance)
    if far.values.size != size:  # rounding put an entry on the other side of the limit: a shuffle shall tell
        return ()
    sigmas = [float(value) for value in standardise(far.values, bulk)]
    smallest = min(map(abs, sigmas))
    if not _beyond(shape, max(smallest - DEVIATIONS * (size - 1), 0.0) ** 2, size * math.sqrt(rest.kurtosis), edge_z):
        return ()
    return tuple(
        _found(
            shape,
            bulk,
            sigmas[k] ** 2,
            Cause(
                kind="entry",
                row=int(far.rows[k]),
                column=int(far.columns[k]),
                value=float(far.values[k]),
                sigmas=sigmas[k],
            ),
        )
        for k in sorted(range(size), key=lambda k: -abs(sigmas[k]))
    )


def _of_mean(shape: tuple[int, int], bulk: Bulk, certificate: Certificate, edge_z: float) -> tuple[Trap, ...]:
    n, m = max(shape), min(shape)
    # The matrix without its mean: the same entries, so the same ratio of the largest and the same kurtosis.
    centred = Moments(n * m, 0.0, 1.0, certificate.kurtosis, -certificate.max_sigmas, certificate.max_sigmas)
    if not makes_no_trap(shape, centred):
        return ()
    strength = certificate.mean_ratio * math.sqrt(n * m)  # m²NM/s²
    if not _beyond(shape, strength, math.sqrt(GAUSSIAN_KURTOSIS), edge_z):
        return ()
    return (_found(shape, bulk, strength, Cause(kind="mean_shift")),)


def _beyond(shape: tuple[int, int], square: float, spread: float, edge_z: float) -> bool:
    """Whether a² + N(1 − 6·spread/√N) stands beyond the edge, and not near it."""
    n = max(shape)
    least = square + n * (1 - DEVIATIONS * spread / math.sqrt(n))
    return math.isfinite(square) and EdgeLaw.of(n, min(shape)).z(least) >= edge_z + NEAR_EDGE


def _found(shape: tuple[int, int], bulk: Bulk, square: float, cause: Cause) -> Trap:
    n, m = max(shape), min(shape)
    return described(n * predicted_outlier(square / n, m / n), cause, bulk, EdgeLaw.of(n, m))
