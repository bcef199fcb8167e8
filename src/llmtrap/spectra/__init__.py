"""Spectra of weight matrices: knows arrays, never files.

`analyse(matrix, settings, matrix_id=…)` measures one matrix: its moments, the ESD and its power-law fit, the
certificate, and the Correlation Traps with their causes. The modules beside it are its parts, usable alone.
"""

from __future__ import annotations

from llmtrap.spectra.analysis import analyse
from llmtrap.spectra.causes import FoundTrap, TrapCause
from llmtrap.spectra.certificate import Bulk, Certificate
from llmtrap.spectra.esd import Esd, LogHistogram, compute_esd, log_histogram
from llmtrap.spectra.moments import Moments
from llmtrap.spectra.power_law import PowerLawFit, fit_power_law
from llmtrap.spectra.readers import ArrayReader, MatrixReader, NonFiniteEntries
from llmtrap.spectra.results import AnalysisSettings, MatrixAnalysis, TrapAnalysis
from llmtrap.spectra.traps import ShuffleCount

__all__ = [
    "AnalysisSettings",
    "ArrayReader",
    "Bulk",
    "Certificate",
    "Esd",
    "FoundTrap",
    "LogHistogram",
    "MatrixAnalysis",
    "MatrixReader",
    "Moments",
    "NonFiniteEntries",
    "PowerLawFit",
    "ShuffleCount",
    "TrapAnalysis",
    "TrapCause",
    "analyse",
    "compute_esd",
    "fit_power_law",
    "log_histogram",
]
