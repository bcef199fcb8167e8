"""llmtrap and WeightWatcher on the same matrices, side by side, with the known reason for each difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse, fit_power_law
from llmtrap.verify.reference import ABSOLUTE_FLOOR, Floats, Reference, run_weightwatcher

ALPHA_TOLERANCE = 1e-3
NORM_TOLERANCE = 1e-5
LEAST_SIDE = 50  # under it neither an exponent nor a count is reliable: there is nothing to compare
SMALL_TAIL = 20
POOLED_UNDER = 100


@dataclass(frozen=True)
class Comparison:
    """One matrix by both. `alpha` is ours with WeightWatcher's floor; `reasons` name why the two differ, if they do."""

    name: str
    shape: tuple[int, int]
    alpha: float | None
    tail: int
    spectral_norm: float
    frobenius_norm: float
    traps: int
    traps_low: int
    traps_high: int
    reference: Reference
    reasons: tuple[str, ...]

    @property
    def alpha_agrees(self) -> bool:
        """Whether α agrees to a thousandth and the tails are the same, or neither has an α."""
        ours, theirs = self.alpha, self.reference.alpha
        if ours is None or theirs is None:
            return ours is theirs
        return abs(ours - theirs) <= ALPHA_TOLERANCE * theirs and self.tail == self.reference.tail

    @property
    def norms_agree(self) -> bool:
        """Whether both norms agree to a hundred-thousandth."""
        ours, theirs = (self.spectral_norm, self.frobenius_norm), self.reference
        return bool(np.allclose(ours, (theirs.spectral_norm, theirs.frobenius_norm), rtol=NORM_TOLERANCE, atol=0))


@dataclass(frozen=True)
class NotCompared:
    """A matrix of which one of the two has nothing to say, and why."""

    name: str
    reason: str


def sample(matrices: Sequence[WeightMatrix], count: int) -> list[WeightMatrix]:
    """`count` matrices spread evenly over those large enough to compare, in the checkpoint's order."""
    usable = [matrix for matrix in matrices if min(matrix.shape) >= LEAST_SIDE]
    if count >= len(usable):
        return usable
    return [usable[k] for k in np.linspace(0, len(usable) - 1, count).round().astype(int)]


def reference_seconds(matrices: Sequence[WeightMatrix]) -> float:
    """About how long WeightWatcher takes for them on one core: it decomposes, shuffles and decomposes again.

    Measured from 384 × 384 (3 s) to 2048 × 1024 (30 s), where it goes with the decomposition's N·M².
    """
    return sum(3 + max(m.shape) * min(m.shape) ** 2 / 8e7 for m in matrices)


def verify(
    checkpoint: Checkpoint, matrices: Sequence[WeightMatrix], seed: int = 0
) -> Iterator[Comparison | NotCompared]:
    """Run both tools on some of the checkpoint's matrices, one after the other, each read when its turn comes.

    Raises:
        MissingExtraError: WeightWatcher is not installed.
        CheckpointError: a matrix cannot be read.
        LlmtrapError: WeightWatcher's process was killed.
    """
    read = ((matrix.id, matrix.read(checkpoint.source)) for matrix in matrices)
    for name, matrix, reference in run_weightwatcher(read):
        if isinstance(reference, str):
            yield NotCompared(name, reference)
        elif not np.isfinite(matrix).all():
            yield NotCompared(name, "it holds entries that are not finite")
        else:
            yield from compare({name: matrix}, {name: reference}, seed)


def compare(matrices: Mapping[str, Floats], references: Mapping[str, Reference], seed: int = 0) -> list[Comparison]:
    """Measure the matrices that the reference measured, and set both side by side."""
    settings = AnalysisSettings(traps="measure", rule="weightwatcher", seed=seed)
    return [
        _compare(name, matrix, references[name], analyse(matrix, settings, matrix_id=name))
        for name, matrix in matrices.items()
        if name in references
    ]


def _compare(name: str, matrix: Floats, reference: Reference, ours: MatrixAnalysis) -> Comparison:
    if ours.esd is None or ours.traps is None:
        raise ValueError(f"{name} holds entries that are not finite: there is nothing to compare")
    fit = fit_power_law(ours.esd.eigenvalues, floor=ABSOLUTE_FLOOR)
    counts = [c.count for c in ours.traps.counts]
    rows, columns = matrix.shape
    compared = Comparison(
        name=name,
        shape=(rows, columns),
        alpha=None if fit is None else fit.alpha,
        tail=0 if fit is None else fit.tail,
        spectral_norm=ours.esd.largest**0.5,
        frobenius_norm=ours.esd.total**0.5,
        traps=ours.traps.count,
        traps_low=min(counts, default=0),
        traps_high=max(counts, default=0),
        reference=reference,
        reasons=(),
    )
    return Comparison(**{**compared.__dict__, "reasons": tuple(_reasons(compared, ours))})


def _reasons(compared: Comparison, ours: MatrixAnalysis) -> list[str]:
    reasons = []
    assert ours.esd is not None  # noqa: S101 - checked by the caller
    own = ours.esd.fit
    usable = int((ours.esd.eigenvalues > ABSOLUTE_FLOOR).sum())
    if own is not None and compared.alpha is not None and abs(own.alpha - compared.alpha) > ALPHA_TOLERANCE:
        reasons.append(f"its floor is absolute (λ > 10⁻⁵): without it our α is {own.alpha:.3f}")
    if not compared.alpha_agrees and usable < SMALL_TAIL:
        reasons.append(f"under {SMALL_TAIL} eigenvalues it fits in another way")
    elif not compared.alpha_agrees:
        reasons.append("no reason known for its α: please report it")
    if not compared.norms_agree:
        theirs = compared.reference
        both = f"{compared.spectral_norm:.6g} and {compared.frobenius_norm:.6g}"
        reasons.append(
            f"norms of {both}, and by its account {theirs.spectral_norm:.6g} and {theirs.frobenius_norm:.6g}"
        )
    if compared.reference.traps is not None and compared.reference.traps != compared.traps:
        reasons += _trap_reasons(compared)
    return reasons


def _trap_reasons(compared: Comparison) -> list[str]:
    n, m = max(compared.shape), min(compared.shape)
    reasons = []
    if compared.traps_low <= (compared.reference.traps or 0) <= compared.traps_high:
        reasons.append("the count depends on the shuffle")
    if n == m:
        reasons.append("it fits a square matrix by a quarter circle of fixed support")
    elif n / m < 1.2:
        reasons.append("its fit of σ is erratic for 1 < Q < 1.2")
    if m < POOLED_UNDER:
        reasons.append(f"under {POOLED_UNDER} columns it sums five shuffles")
    return reasons or ["its σ is fitted to the spectrum; ours is the variance of the bulk entries"]
