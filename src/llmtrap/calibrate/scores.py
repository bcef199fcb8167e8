"""Every measure as one number a checkpoint, with the direction in which theory says it speaks of overfitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmtrap.calibrate.history import History
from llmtrap.calibrate.measurement import Layer, Measurement

Value = Callable[[History, Measurement], float]


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

    def signed(self, history: History, measured: Measurement) -> float:
        """The number, turned so that high means overfitting."""
        return self.sign * self.value(history, measured)


def _sum(field: str) -> Value:
    return lambda history, measured: float(sum(getattr(layer, field) for layer in history.layers(measured)))


def _most(field: str) -> Value:
    return lambda history, measured: float(max(getattr(layer, field) for layer in history.layers(measured)))


def _alphas(history: History, measured: Measurement) -> list[float]:
    return [layer.alpha for layer in history.layers(measured) if layer.alpha is not None]


def _alpha_first(history: History, measured: Measurement) -> float:
    first: Layer = history.layers(measured)[0]
    return float("nan") if first.alpha is None else first.alpha


def _alpha_least(history: History, measured: Measurement) -> float:
    return min(_alphas(history, measured), default=float("nan"))


def _alpha_least_reliable(history: History, measured: Measurement) -> float:
    """The least α among reliable fits; far above every band where no fit is reliable, so that it never flags."""
    fits = [layer.alpha for layer in history.layers(measured) if layer.alpha is not None and layer.alpha_reliable]
    return min(fits, default=99.0)


def _alpha_mean(history: History, measured: Measurement) -> float:
    alphas = _alphas(history, measured)
    return float(np.mean(alphas)) if alphas else float("nan")


def _entropy(history: History, measured: Measurement) -> float:
    """Absolute weight entropy, summed over matrices, as a share of its value at the start."""
    first = history.measurements[0]
    return sum(layer.entropy for layer in measured.layers) / sum(layer.entropy for layer in first.layers)


def _l2(history: History, measured: Measurement) -> float:
    return measured.l2 / history.measurements[0].l2


SCORES: tuple[Score, ...] = (
    Score("centred", "centred traps (entry + heavy tail)", _sum("centred"), 1, "traps", (1, 3, 5)),
    Score("traps", "all traps, mean shifts too", _sum("traps"), 1, "traps", (1, 3, 5)),
    Score("mean_shift", "mean-shift traps", _sum("mean_shift"), 1, "traps", (1,)),
    Score("centred_edge_ratio", "largest centred shuffled eigenvalue / edge", _most("centred_edge_ratio"), 1, "traps"),
    Score("edge_ratio", "largest shuffled eigenvalue / edge", _most("edge_ratio"), 1, "traps"),
    Score("mp_ks", "KS distance of the shuffled bulk from Marchenko-Pastur", _most("mp_ks"), 1, "traps"),
    Score("alpha_first", "α of the first layer", _alpha_first, -1, "spectrum", (2,)),
    Score("alpha_least", "least α of any layer", _alpha_least, -1, "spectrum", (2,)),
    Score("alpha_reliable", "least reliable α (the audit's band)", _alpha_least_reliable, -1, "spectrum", (2,)),
    Score("alpha_mean", "mean α", _alpha_mean, -1, "spectrum", (2,)),
    Score("kurtosis", "kurtosis of the entries, largest layer", _most("kurtosis"), 1, "entries"),
    Score("max_sigmas", "largest entry in deviations of the bulk", _most("max_sigmas"), 1, "entries"),
    Score("l2", "l2 norm / its start", _l2, 1, "rival"),
    Score("entropy", "absolute weight entropy / its start", _entropy, -1, "rival"),
    Score("sparsity", "activation sparsity", lambda _, m: float(np.mean(m.sparsity)), 1, "rival"),
    Score("dead", "units that never fire", lambda _, m: float(sum(m.dead)), 1, "rival"),
    Score("circuit", "local circuit complexity", lambda _, m: m.circuit_complexity, 1, "rival"),
    Score("class_share", "largest class share on Gaussian probes", lambda _, m: _unit_share(m), 1, "rival"),
)


def _unit_share(measured: Measurement) -> float:
    """The share at the scale of the data itself (the second of four scales), or the only one."""
    return measured.class_share[1] if len(measured.class_share) > 1 else measured.class_share[0]


def score(key: str) -> Score:
    """The score of that name."""
    return next(item for item in SCORES if item.key == key)
