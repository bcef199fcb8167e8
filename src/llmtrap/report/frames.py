"""A report as a table: one row a matrix, plain numbers and texts, for pandas, polars, CSV and Parquet."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal

from llmtrap.errors import MissingExtraError, UsageError
from llmtrap.report.document import Matrix, Report
from llmtrap.report.facts import state, strongest
from llmtrap.report.worst_rows import short_cause

_LIBRARIES: Final = ("pandas", "polars")


def to_dataframe(report: Report, library: Literal["auto", "pandas", "polars"] = "auto") -> Any:
    """One row a matrix, in the report's order.

    Raises:
        MissingExtraError: the library is not installed, or neither.
    """
    if library not in ("auto", *_LIBRARIES):
        raise UsageError(f"there are no frames of {library!r}", remedy=f"Choose one of: {', '.join(_LIBRARIES)}")
    names = _LIBRARIES if library == "auto" else (library,)
    installed = next((name for name in names if find_spec(name) is not None), None)
    if installed is None:
        raise MissingExtraError.of("a data frame", "frames")
    return import_module(installed).DataFrame(columns(report))


def columns(report: Report) -> dict[str, list[Any]]:
    """The table's columns by name; None where a matrix has no such number."""
    rows = [record(matrix) for matrix in report.matrices]
    names = rows[0] if rows else record_names()
    return {name: [row[name] for row in rows] for name in names}


def record_names() -> list[str]:
    """The names of the columns."""
    return [*_IDENTITY, *_ALPHA, *_SPECTRUM, *_TRAPS, *_STRONGEST]


_IDENTITY = ("id", "tensor", "part", "layer", "role", "expert", "rows", "columns", "encoding", "state")
_ALPHA = {"alpha": "value", "alpha_sigma": "sigma", "alpha_band": "band", "alpha_reliable": "reliable"}
_SPECTRUM = {name: name for name in ("spectral_norm", "frobenius_norm", "stable_rank", "hard_rank", "alpha_weighted")}
_TRAPS = {
    "traps": "centred", "mean_shifts": "mean_shift", "traps_low": "low", "traps_high": "high", "traps_method": "method",
    "traps_reliable": "reliable", "kurtosis": "kurtosis", "max_sigmas": "max_sigmas",
}  # fmt: skip
_STRONGEST = ("strength", "cause", "cause_row", "cause_column", "cause_value")


def record(matrix: Matrix) -> dict[str, Any]:
    """One matrix's row."""
    trap = strongest(matrix)
    cause = None if trap is None else trap.cause
    identity = (
        matrix.id, matrix.tensor, matrix.part, matrix.layer, matrix.role, matrix.expert, *matrix.shape, matrix.encoding,
        state(matrix),
    )  # fmt: skip
    strongest_trap = (
        None if trap is None else trap.strength,
        None if trap is None else short_cause(trap, matrix),
        *((None, None, None) if cause is None else (cause.row, cause.column, cause.value)),
    )
    return {
        **dict(zip(_IDENTITY, identity, strict=True)),
        **_fields(matrix.alpha, _ALPHA),
        **_fields(matrix.spectrum, _SPECTRUM),
        **_fields(matrix.traps, _TRAPS),
        **dict(zip(_STRONGEST, strongest_trap, strict=True)),
    }


def _fields(part: object, names: dict[str, str]) -> dict[str, Any]:
    return {name: None if part is None else getattr(part, field) for name, field in names.items()}
