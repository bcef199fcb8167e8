"""Spectra of weight matrices: knows arrays, never files.

`analyse(matrix, settings, matrix_id=…)` measures one matrix: its moments, the ESD and its power-law fit, the
certificate, and the Correlation Traps with their causes; `summarise` says in numbers what it found (`Measured`, which
reports hold). The modules beside it are its parts, usable alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrap.spectra.analysis import analyse
    from llmtrap.spectra.certificate import Bulk, Certificate
    from llmtrap.spectra.esd import Esd, compute_esd, log_histogram
    from llmtrap.spectra.measured import Measured
    from llmtrap.spectra.moments import Moments
    from llmtrap.spectra.power_law import PowerLawFit, fit_power_law
    from llmtrap.spectra.readers import ArrayReader, MatrixReader
    from llmtrap.spectra.results import MatrixAnalysis, TrapAnalysis
    from llmtrap.spectra.settings import AnalysisSettings
    from llmtrap.spectra.summary import summarise
    from llmtrap.spectra.traps import ShuffleCount

__all__ = [
    "AnalysisSettings",
    "ArrayReader",
    "Bulk",
    "Certificate",
    "Esd",
    "MatrixAnalysis",
    "MatrixReader",
    "Measured",
    "Moments",
    "PowerLawFit",
    "ShuffleCount",
    "TrapAnalysis",
    "analyse",
    "compute_esd",
    "fit_power_law",
    "log_histogram",
    "summarise",
]

_DEFINED_IN = {
    "AnalysisSettings": "settings",
    "ArrayReader": "readers",
    "Bulk": "certificate",
    "Certificate": "certificate",
    "Esd": "esd",
    "MatrixAnalysis": "results",
    "MatrixReader": "readers",
    "Measured": "measured",
    "Moments": "moments",
    "PowerLawFit": "power_law",
    "ShuffleCount": "traps",
    "TrapAnalysis": "results",
    "analyse": "analysis",
    "compute_esd": "esd",
    "fit_power_law": "power_law",
    "log_histogram": "esd",
    "summarise": "summary",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: a report that is only read needs no linear algebra."""
    if name in _DEFINED_IN:
        return getattr(import_module(f"llmtrap.spectra.{_DEFINED_IN[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
