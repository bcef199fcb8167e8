"""Measure one checkpoint: every matrix by the audit's own code, and the rival diagnostics beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.diagnostics import absolute_weight_entropy, diagnose
from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.calibrate.networks import matrix_names
from llmtrap.calibrate.recipe import Recipe
from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, TrapAnalysis, analyse, summarise
from llmtrap.spectra.settings import SHUFFLES

Matrix = NDArray[np.floating]


def matrix_id(name: str) -> str:
    """The id under which an audit of the checkpoint knows a matrix: its tensor's name without the suffix."""
    return name.removesuffix(".weight")


def analyse_matrix(name: str, matrix: Matrix, seed: int) -> tuple[MatrixAnalysis, TrapAnalysis]:
    """One matrix by the audit's own code, always shuffled, and its traps.

    Raises:
        FloatingPointError: the matrix has entries that are no numbers: the training diverged.
    """
    # As many shuffles of each checkpoint: counts along a run are compared with one another.
    settings = AnalysisSettings(traps="measure", seed=seed, most_shuffles=SHUFFLES)
    result = analyse(matrix, settings, matrix_id=matrix_id(name))
    if result.non_finite is not None or result.traps is None:
        raise FloatingPointError(f"{name} holds entries that are no finite numbers: the training diverged")
    return result, result.traps


def measure_layer(name: str, weight: Tensor, seed: int) -> Layer:
    """Everything measured of one matrix; the seed is that of the shuffles."""
    matrix = weight.numpy()
    result, traps = analyse_matrix(name, matrix, seed)
    found = summarise(result)
    assert found.alpha is not None  # noqa: S101 - all entries are finite, and both are asked for
    assert found.traps is not None  # noqa: S101
    assert found.spectrum is not None  # noqa: S101
    n, m = max(matrix.shape), min(matrix.shape)
    upper = n * (1 + math.sqrt(m / n)) ** 2 * traps.bulk.variance
    once = AnalysisSettings(alpha=False, traps="measure", shuffles=1, seed=seed)
    centred = analyse(matrix - matrix.dtype.type(traps.bulk.mean), once, matrix_id=matrix_id(name)).traps
    fit = traps.bulk_fit
    return Layer(
        alpha=found.alpha,
        spectrum=found.spectrum.model_copy(update={"histogram": None, "noise": None}),
        traps=found.traps.model_copy(update={"found": (), "shuffled": None}),
        non_finite=None,
        all_zero=found.all_zero,
        name=name,
        shape=(int(matrix.shape[0]), int(matrix.shape[1])),
        entries=sum(trap.cause.kind == "entry" for trap in traps.found),
        edge_ratio=_ratio(traps, upper),
        centred_edge_ratio=_ratio(centred, upper),
        mp_ks=1.0 if fit is None else fit.ks,
        mp_p=0.0 if fit is None else fit.p_value,
        weight_entropy=absolute_weight_entropy(weight),
    )


def _ratio(traps: TrapAnalysis | None, upper: float) -> float:
    """Largest shuffled eigenvalue over the bulk's upper edge; 0 for a matrix without spread."""
    return 0.0 if traps is None or traps.spectrum is None or upper <= 0 else float(traps.spectrum[-1]) / upper


def measure(
    recipe: Recipe, weights: Mapping[str, Tensor], data: TaskData, seed: int, step: int, seconds: float
) -> Measurement:
    """Everything measured of one checkpoint.

    Args:
        recipe: what is trained.
        weights: all parameters after `step` updates.
        data: training and test examples.
        seed: of the run; decides the shuffles, the probes and the mask.
        step: updates made.
        seconds: CPU seconds of training so far.
    """
    seen = diagnose(recipe, weights, data, seed)
    layers = tuple(measure_layer(name, weights[name], seed) for name in matrix_names(recipe))
    return Measurement(**dict(seen), step=step, seconds=seconds, layers=layers)
