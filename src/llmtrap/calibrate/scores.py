"""Every measure as one number a checkpoint, with the direction in which theory says it speaks of overfitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.spectra.measured import Measured

Combine = Callable[[Sequence[float]], float]
Value = Callable[[Run, Measurement], float]


def of_traps(field: str, combine: Combine) -> Callable[[Iterable[Measured]], float]:
    """A field of the traps, over the matrices in which it is known; NaN where it is in none."""

    def value(matrices: Iterable[Measured]) -> float:
        found = [getattr(matrix.traps, field) for matrix in matrices if matrix.traps is not None]
        known = [float(number) for number in found if number is not None]
        return combine(known) if known else math.nan

    return value


def of_alphas(combine: Combine, *, reliable: bool = False) -> Callable[[Iterable[Measured]], float]:
    """The exponents of the matrices, or of those with a reliable fit; NaN where there is none."""

    def value(matrices: Iterable[Measured]) -> float:
        fits = [matrix.alpha for matrix in matrices if matrix.alpha is not None]
        known = [fit.value for fit in fits if fit.value is not None and (fit.reliable or not reliable)]
        return combine(known) if known else math.nan

    return value


@dataclass(frozen=True)
class Score:
    """One measure of a checkpoint.

    Attributes:
        key: short name, stable over versions.
        label: what tables call it.
        value: the number; NaN where it is not defined.
        sign: +1 where high values are held to speak of overfitting, −1 where low ones are. Fixed before looking.
        kind: from shuffled spectra, from the spectrum, from the entries alone, or one of the rival diagnostics.
        thresholds: values at which the measure is said to flag, in its own units and direction.
    """

    key: str
    label: str
    value: Value
    sign: Literal[1, -1]
    kind: Literal["traps", "spectrum", "entries", "rival"]
    thresholds: tuple[float, ...] = ()

    def signed(self, run: Run, measured: Measurement) -> float:
        """The number, turned so that high means overfitting."""
        return self.sign * self.value(run, measured)


def _over(value: Callable[[Sequence[Layer]], float]) -> Value:
    """Of the matrices that count."""
    return lambda run, measured: value(run.layers(measured))


def _least_reliable(matrices: Iterable[Measured]) -> float:
    """Far above every band where no fit is reliable, so that it never flags."""
    least = of_alphas(min, reliable=True)(matrices)
    return 99.0 if math.isnan(least) else least


def _entropy(run: Run, measured: Measurement) -> float:
    """Absolute weight entropy, summed over matrices, as a share of its value at the start."""
    now, start = (sum(layer.weight_entropy for layer in m.layers) for m in (measured, run.checkpoints[0]))
    return now / start


SCORES: tuple[Score, ...] = (
    Score("centred", "centred traps (entry + heavy tail)", _over(of_traps("centred", sum)), 1, "traps", (1, 3, 5)),
    Score("traps", "all traps, mean shifts too", _over(of_traps("count", sum)), 1, "traps", (1, 3, 5)),
    Score("mean_shift", "mean-shift traps", _over(of_traps("mean_shift", sum)), 1, "traps", (1,)),
    Score(
        "centred_edge_ratio", "largest centred shuffled eigenvalue / edge",
        _over(lambda layers: max(layer.centred_edge_ratio for layer in layers)), 1, "traps",
    ),
    Score(
        "edge_ratio", "largest shuffled eigenvalue / edge",
        _over(lambda layers: max(layer.edge_ratio for layer in layers)), 1, "traps",
    ),
    Score(
        "mp_ks", "KS distance of the shuffled bulk from Marchenko-Pastur",
        _over(lambda layers: max(layer.mp_ks for layer in layers)), 1, "traps",
    ),
    Score("alpha_first", "α of the first layer", _over(lambda all_: of_alphas(min)(all_[:1])), -1, "spectrum", (2,)),
    Score("alpha_least", "least α of any layer", _over(of_alphas(min)), -1, "spectrum", (2,)),
    Score("alpha_reliable", "least reliable α (the audit's band)", _over(_least_reliable), -1, "spectrum", (2,)),
    Score("alpha_mean", "mean α", _over(of_alphas(fmean)), -1, "spectrum", (2,)),
    Score("kurtosis", "kurtosis of the entries, largest layer", _over(of_traps("kurtosis", max)), 1, "entries"),
    Score("max_sigmas", "largest entry in deviations of the bulk", _over(of_traps("max_sigmas", max)), 1, "entries"),
    Score("l2", "l2 norm / its start", lambda run, m: m.l2 / run.checkpoints[0].l2, 1, "rival"),
    Score("entropy", "absolute weight entropy / its start", _entropy, -1, "rival"),
    Score("sparsity", "activation sparsity", lambda _, m: fmean(m.sparsity), 1, "rival"),
    Score("dead", "units that never fire", lambda _, m: float(sum(m.dead)), 1, "rival"),
    Score("circuit", "local circuit complexity", lambda _, m: m.circuit_complexity, 1, "rival"),
    # At the scale of the data itself, the second of four, or the only one.
    Score("class_share", "largest class share on Gaussian probes", lambda _, m: m.class_share[:2][-1], 1, "rival"),
)  # fmt: skip


def score(key: str) -> Score:
    """The score of that name."""
    return next(item for item in SCORES if item.key == key)


# Columns of the table of phases: of the run, of each matrix, and of the run again.
FIRST_COLUMNS: dict[str, Value] = {
    "step": lambda _, m: float(m.step),
    "train accuracy": lambda _, m: m.train_accuracy,
    "test accuracy": lambda _, m: m.test_accuracy,
    "train loss": lambda _, m: m.train_loss,
    "test loss": lambda _, m: m.test_loss,
}
LAYER_COLUMNS: dict[str, Callable[[Layer], float | None]] = {
    "α": lambda layer: layer.alpha.value,
    "KS distance of the power law": lambda layer: layer.alpha.ks,
    "eigenvalues in the tail": lambda layer: layer.alpha.tail,
    "traps": lambda layer: layer.traps.count,
    "centred traps": lambda layer: layer.traps.centred,
    "mean-shift traps": lambda layer: layer.traps.mean_shift,
    "λ_max / λ₊, shuffled": lambda layer: layer.edge_ratio,
    "λ_max / λ₊, shuffled and centred": lambda layer: layer.centred_edge_ratio,
    "kurtosis": lambda layer: layer.traps.kurtosis,
    "max |w − m| / s": lambda layer: layer.traps.max_sigmas,
    "KS distance from Marchenko-Pastur": lambda layer: layer.mp_ks,
    "its p-value": lambda layer: layer.mp_p,
    "absolute weight entropy": lambda layer: layer.weight_entropy,
}
LAST_COLUMNS: dict[str, Value] = {
    "mean α": score("alpha_mean").value,
    "l2 norm": lambda _, m: m.l2,
    **{score(key).label: score(key).value for key in ("circuit", "sparsity", "dead", "class_share")},
}
