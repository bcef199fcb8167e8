"""Does the detector work for a user's own kind of network? Its checkpoints as audited, against known test scores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from llmtrap.calibrate.phases import DROP, NEAR_PEAK
from llmtrap.calibrate.scores import of_alphas, of_traps
from llmtrap.calibrate.separation import Interval, clustered_area
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import TargetError, UsageError
from llmtrap.printable import printable
from llmtrap.spectra.measured import Measured

_MOST_BYTES = 16 << 20
_REMEDY = "Give a CSV file with the columns step and test, one row a checkpoint; higher scores are better"


@dataclass(frozen=True)
class OwnRun:
    """Checkpoints of one run: for each step the audit's matrices, and the score on data that it was not trained on."""

    matrices: Mapping[int, Sequence[Measured]]
    test: Mapping[int, float]

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that were audited and scored."""
        return tuple(sorted(self.matrices.keys() & self.test.keys()))

    @property
    def peak(self) -> int:
        """The step of the best score, the first of several."""
        return max(self.steps, key=lambda step: (self.test[step], -step))

    def good(self) -> tuple[int, ...]:
        """Steps within 0.05 of the peak."""
        return tuple(step for step in self.steps if self.test[step] >= self.test[self.peak] - NEAR_PEAK)

    def collapsed(self) -> tuple[int, ...]:
        """Steps after the peak that have lost 0.10 of it."""
        return tuple(s for s in self.steps if s > self.peak and self.test[s] <= self.test[self.peak] - DROP)


@dataclass(frozen=True)
class OwnRow:
    """How well one measure tells collapsed checkpoints from good ones. `area` is None where it is never defined."""

    label: str
    bad_when: str
    area: Interval | None


def _norm(matrices: Iterable[Measured]) -> float:
    spectra = [matrix.spectrum for matrix in matrices if matrix.spectrum is not None]
    return math.sqrt(sum(spectrum.frobenius_norm**2 for spectrum in spectra)) if spectra else math.nan


# What is measured, and whether high or low values are held to speak of overfitting.
_MEASURES: tuple[tuple[str, Callable[[Iterable[Measured]], float], int], ...] = (
    ("centred traps", of_traps("centred", sum), 1),
    ("all traps, mean shifts too", of_traps("count", sum), 1),
    ("mean α", of_alphas(fmean), -1),
    ("least reliable α", of_alphas(min, reliable=True), -1),
    ("l2 norm of the matrices", _norm, 1),
    ("largest kurtosis", of_traps("kurtosis", max), 1),
    ("largest entry in deviations of the bulk", of_traps("max_sigmas", max), 1),
)


def separate(runs: Sequence[OwnRun]) -> tuple[OwnRow, ...]:
    """For each measure the AUC of collapsed against good checkpoints, pooled over the runs.

    Raises:
        UsageError: no run has both kinds.
    """
    good = sum(len(run.good()) for run in runs if run.steps)
    collapsed = sum(len(run.collapsed()) for run in runs if run.steps)
    if not good or not collapsed:
        raise UsageError(
            f"{good} of the scored checkpoints are within {NEAR_PEAK:.2f} of their run's best score, and {collapsed} "
            f"lost {DROP:.2f} of it afterwards: there is nothing to tell apart",
            remedy="Both kinds are needed; steps of the scores must be steps of the trajectory",
        )
    rows = []
    for label, measure, sign in _MEASURES:
        groups = []
        for kind in (OwnRun.collapsed, OwnRun.good):
            values = [np.array([sign * measure(run.matrices[s]) for s in kind(run)], dtype=np.float64) for run in runs]
            groups.append([vector[np.isfinite(vector)] for vector in values])
        rows.append(OwnRow(label, "high" if sign > 0 else "low", clustered_area(*groups)))
    return tuple(rows)


def read_scores(file: Path) -> dict[int, float]:
    """Test scores by step from a CSV file with the columns `step` and `test`.

    Raises:
        TargetError: there is no such file, or it is no such table.
    """
    try:
        text = read_document(file, _MOST_BYTES, "table of scores").decode("utf-8-sig")
    except DocumentError as error:
        raise TargetError(error.problem, file=str(file), remedy=error.remedy) from error
    except UnicodeDecodeError:
        raise TargetError("is not text in UTF-8", file=str(file), remedy=_REMEDY) from None
    rows = csv.DictReader(io.StringIO(text))
    try:
        if not {"step", "test"} <= set(rows.fieldnames or ()):
            raise TargetError("has no columns step and test", file=str(file), remedy=_REMEDY)
        return _by_step(rows, file)
    except csv.Error as error:
        raise TargetError(f"is no table ({error})", file=str(file), remedy=_REMEDY) from None


def _by_step(rows: csv.DictReader[str], file: Path) -> dict[int, float]:
    scores: dict[int, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            step, score = int(row["step"]), float(row["test"])
        except (ValueError, TypeError):
            words = printable(f"{row['step']}, {row['test']}", 80)
            raise TargetError(
                f"line {number} is no step with a score: {words}", file=str(file), remedy=_REMEDY
            ) from None
        if not math.isfinite(score):
            raise TargetError(f"line {number}: the score is no finite number", file=str(file), remedy=_REMEDY)
        if step in scores:
            raise TargetError(f"line {number}: step {step} is there twice", file=str(file), remedy=_REMEDY)
        scores[step] = score
    return scores
