"""All that was found of a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.certificate import Bulk, Certificate
from llmtrap.spectra.esd import Esd
from llmtrap.spectra.marchenko_pastur import BulkFit
from llmtrap.spectra.measured import Method, NonFinite, Trap, WeightWatcherColumns
from llmtrap.spectra.moments import Moments
from llmtrap.spectra.noise import NoiseComparison
from llmtrap.spectra.traps import ShuffleCount


@dataclass(frozen=True)
class TrapAnalysis:
    """Traps of one matrix; `edge` is an eigenvalue of RᵀR.

    `method`: certified (no shuffle shows one), predicted (every shuffle shows these), measured, or undecided.
    `counts` has one element a shuffle, and one for all of them where they are predicted; `found` are the traps of the
    first; `spectrum` is its whole spectrum, where that was computed.
    """

    method: Method
    rule: str
    certificate: Certificate
    bulk: Bulk
    edge: float | None
    reliable: bool
    counts: tuple[ShuffleCount, ...] = ()
    found: tuple[Trap, ...] = ()
    bulk_fit: BulkFit | None = None
    spectrum: NDArray[np.float64] | None = None

    @property
    def shuffles(self) -> int:
        """How many were made."""
        return len(self.counts) if self.method == "measured" else 0

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
    def most(self) -> int:
        """The most traps that a shuffle shows."""
        return max((c.count for c in self.counts), default=0)


@dataclass(frozen=True)
class MatrixAnalysis:
    """All results of one matrix. With `non_finite` set, nothing else is.

    `noise` is its spectrum beside that of noise, `alpha_interval` the exponents that fit as well, with and without the
    traps' eigenvalues, `columns` what WeightWatcher's users look for; all None where there is no α.
    """

    shape: tuple[int, int]
    moments: Moments | None
    esd: Esd | None
    traps: TrapAnalysis | None
    non_finite: NonFinite | None
    noise: NoiseComparison | None = None
    alpha_interval: tuple[float, float] | None = None
    columns: WeightWatcherColumns | None = None


def _lower_median(counts: list[int]) -> int:
    return sorted(counts)[(len(counts) - 1) // 2] if counts else 0
