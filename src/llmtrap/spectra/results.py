"""What is asked of a matrix, and all that was found of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import UsageError
from llmtrap.spectra.certificate import Bulk, Certificate
from llmtrap.spectra.esd import Esd
from llmtrap.spectra.marchenko_pastur import BulkFit
from llmtrap.spectra.measured import Method, NonFinite, Trap, WeightWatcherColumns
from llmtrap.spectra.moments import Moments
from llmtrap.spectra.noise import NoiseComparison
from llmtrap.spectra.traps import ShuffleCount

TRAP_MODES = ("auto", "measure", "certify")
TRAP_RULES = ("tracy-widom", "weightwatcher")
SEEDS = 1 << 63
# Shuffles of a matrix whose first ones leave doubt. Whoever asks for fewer than the default wants no more.
SHUFFLES = 5
SHUFFLES_IN_DOUBT = 25


@dataclass(frozen=True)
class AnalysisSettings:
    """What to measure of a matrix.

    `traps`: auto (certify, else measure; without `alpha` predict before measuring), measure (shuffle always), certify
    (certify and predict: one pass). `shuffles`: how many, and `most_shuffles` how many where those leave doubt whether
    every one shows a trap (None: 25; but no more than `shuffles` where fewer than 5 are asked for, or `paired`).
    `paired`: shuffle by place and by rank rather than by value, so that two versions of a matrix are seen through the
    same shuffles.
    """

    alpha: bool = True
    traps: str = "auto"
    rule: str = "tracy-widom"
    shuffles: int = SHUFFLES
    most_shuffles: int | None = None
    seed: int = 0
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse what no measurement can mean.

        Raises:
            UsageError: an unknown word, no shuffle at all, or a seed that no generator takes.
        """
        for name, value, known in (("traps", self.traps, TRAP_MODES), ("trap rule", self.rule, TRAP_RULES)):
            if value not in known:
                raise UsageError(f"there is no {name} {value!r}", remedy=f"Choose one of: {', '.join(known)}")
        if self.shuffles < 1:
            raise UsageError("--shuffles must be at least 1", remedy="Give the number of shuffles, 5 by default")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"the seed {self.seed} is not between 0 and 2^63 - 1", remedy="Give another --seed")

    @property
    def in_doubt(self) -> int:
        """How many shuffles to make where the first ones leave doubt."""
        if self.most_shuffles is not None:
            return max(self.most_shuffles, self.shuffles)
        return self.shuffles if self.paired or self.shuffles < SHUFFLES else max(SHUFFLES_IN_DOUBT, self.shuffles)


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
