"""A report's table as a data frame of pandas or polars."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal

from llmtrap.errors import MissingExtraError, UsageError
from llmtrap.report.document import Report
from llmtrap.report.table import columns

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
