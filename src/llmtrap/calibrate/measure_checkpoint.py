"""Measure one checkpoint: every matrix by the audit's own code, and the rival diagnostics beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.diagnostics import diagnose
from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.calibrate.networks import matrix_names
from llmtrap.calibrate.recipe import Recipe
from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse
from llmtrap.spectra.results import SHUFFLES

Matrix = NDArray[np.floating]


def matrix_id(name: str) -> str:
    """The id under which an audit of the checkpoint knows a matrix: its tensor's name without the suffix."""
    return name.removesuffix(".weight")


def settings_for(seed: int) -> AnalysisSettings:
    """Audit settings of a calibration: every matrix is shuffled, with the default rule and number of shuffles."""
    # As many shuffles of each checkpoint: counts along a run are compared with one another.
    return AnalysisSettings(traps="measure", seed=seed, most_shuffles=SHUFFLES)


def analyse_matrix(name: str, matrix: Matrix, seed: int) -> MatrixAnalysis:
    """One matrix by the audit's own code.

    Raises:
        FloatingPointError: the matrix has entries that are no numbers: the training diverged.
    """
    result = analyse(matrix, settings_for(seed), matrix_id=matrix_id(name))
    if result.non_finite is not None:
        raise FloatingPointError(f"{name} holds entries that are no finite numbers: the training diverged")
    return result


def measure_layer(name: str, matrix: Matrix, entropy: float, seed: int) -> Layer:
    """Everything measured of one matrix.

    Args:
        name: of the matrix.
        matrix: its entries.
        entropy: its absolute weight entropy.
        seed: of the shuffles.
    """
    result = analyse_matrix(name, matrix, seed)
    moments, esd, traps = result.moments, result.esd, result.traps
    assert moments is not None  # noqa: S101 - all entries are finite
    assert esd is not None  # noqa: S101
    assert traps is not None  # noqa: S101
    n, m = max(matrix.shape), min(matrix.shape)
    upper = n * (1 + math.sqrt(m / n)) ** 2 * traps.bulk.variance
    centred = analyse(
        matrix - matrix.dtype.type(traps.bulk.mean),
        AnalysisSettings(alpha=False, traps="measure", shuffles=1, seed=seed),
        matrix_id=matrix_id(name),
    ).traps
    fit = esd.fit
    frobenius = math.sqrt(esd.total)
    return Layer(
        name=name,
        shape=(int(matrix.shape[0]), int(matrix.shape[1])),
        alpha=None if fit is None else fit.alpha,
        alpha_sigma=None if fit is None else fit.sigma,
        alpha_ks=None if fit is None else fit.ks,
        alpha_xmin=None if fit is None else fit.xmin,
        tail=0 if fit is None else fit.tail,
        alpha_reliable=fit is not None and fit.reliable,
        traps=traps.count,
        centred=traps.centred,
        entries=sum(trap.cause.kind == "entry" for trap in traps.found),
        mean_shift=traps.mean_shift,
        low=min((count.count for count in traps.counts), default=0),
        high=max((count.count for count in traps.counts), default=0),
        traps_reliable=traps.reliable,
        edge_ratio=_ratio(traps.spectrum, upper),
        centred_edge_ratio=_ratio(None if centred is None else centred.spectrum, upper),
        kurtosis=moments.kurtosis,
        max_sigmas=traps.certificate.max_sigmas,
        mean_ratio=traps.certificate.mean_ratio,
        mp_ks=1.0 if traps.bulk_fit is None else traps.bulk_fit.ks,
        mp_p=0.0 if traps.bulk_fit is None else traps.bulk_fit.p_value,
        mp_sigma=traps.bulk.deviation,
        spectral_norm=math.sqrt(max(esd.largest, 0.0)),
        frobenius_norm=frobenius,
        stable_rank=esd.total / esd.largest if esd.largest > 0 else 0.0,
        entropy=entropy,
    )


def _ratio(spectrum: NDArray[np.float64] | None, upper: float) -> float:
    """Largest shuffled eigenvalue over the bulk's upper edge; 0 for a matrix without spread."""
    return 0.0 if spectrum is None or upper <= 0 else float(spectrum[-1]) / upper


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
    layers = tuple(
        measure_layer(name, weights[name].numpy(), seen.entropy[name], seed) for name in matrix_names(recipe)
    )
    return Measurement(
        step=step,
        seconds=seconds,
        train_accuracy=seen.train_accuracy,
        test_accuracy=seen.test_accuracy,
        train_loss=seen.train_loss,
        test_loss=seen.test_loss,
        far_accuracy=seen.far_accuracy,
        l2=seen.l2,
        circuit_complexity=seen.circuit_complexity,
        sparsity=seen.sparsity,
        dead=seen.dead,
        class_share=seen.class_share,
        layers=layers,
    )
