"""What a report and its matrices can do from Python: be looked up, shown, drawn, saved, compared, made a frame of."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from llmtrap.errors import UsageError
from llmtrap.printable import printable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from llmtrap.report.against import Comparison
    from llmtrap.report.document import Matrix, Report

_SHOWN = 80


class NoSuchMatrixError(UsageError, KeyError):
    """A report has no matrix of this name."""

    def __str__(self) -> str:
        return self.message


class MatrixMethods:
    """What `Matrix` can do."""

    def __repr__(self) -> str:
        from llmtrap.report.notebook import matrix_words  # noqa: PLC0415

        return matrix_words(cast("Matrix", self))

    def __str__(self) -> str:
        return repr(self)

    def plot(self) -> Figure:
        """The spectrum with the fit of its tail, and that of the shuffled entries with the edge and the traps.

        Raises:
            UsageError: the report has no spectrum of this matrix.
        """
        from llmtrap.report.plot import plot_matrix  # noqa: PLC0415  (Plotly is slow to import)

        return plot_matrix(cast("Matrix", self))


class ReportMethods:
    """What `Report` can do."""

    def __repr__(self) -> str:
        from llmtrap.report.notebook import report_words  # noqa: PLC0415

        return report_words(cast("Report", self))

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and the ten worst matrices."""
        from llmtrap.report.notebook import report_html  # noqa: PLC0415

        return report_html(cast("Report", self))

    def __getitem__(self, name: str) -> Matrix:
        """The matrix of an id, an alias or a stored tensor's name.

        Raises:
            NoSuchMatrixError: there is none; the remedy names the nearest.
        """
        found = self._named(name)
        if found is None:
            matrices = cast("Report", self).matrices
            near = get_close_matches(str(name), [matrix.id for matrix in matrices], n=3)
            remedy = f"Did you mean {', '.join(near)}?" if near else "report.matrices has all that were measured"
            raise NoSuchMatrixError(f"there is no matrix {printable(str(name), _SHOWN)!r}", remedy=remedy)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._named(name) is not None

    def _named(self, name: str) -> Matrix | None:
        matrices = cast("Report", self).matrices
        by_id = (matrix for matrix in matrices if name == matrix.id or name in matrix.aliases)
        return next(by_id, None) or next((matrix for matrix in matrices if matrix.tensor == name), None)

    def to_dataframe(self, library: Literal["auto", "pandas", "polars"] = "auto") -> Any:
        """One row a matrix, in the report's order.

        Args:
            library: which library's frame; auto takes pandas where it is installed, else polars.

        Raises:
            MissingExtraError: neither is installed.
        """
        from llmtrap.report.frames import to_dataframe  # noqa: PLC0415

        return to_dataframe(cast("Report", self), library)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report in the form that the name ends in: .html, .json, .md, .csv or .parquet; returns the path.

        Raises:
            UsageError: another ending.
            OutputError: it cannot be written.
        """
        from llmtrap.report.save import save  # noqa: PLC0415

        return save(cast("Report", self), Path(path))

    def compare(self, other: Report) -> Comparison:
        """This report against that of another version of the model, matrix by matrix; `other` is the earlier one.

        Raises:
            UsageError: it is no report.
        """
        from llmtrap.report.against import compare  # noqa: PLC0415

        if not isinstance(other, ReportMethods):
            problem = f"an object of type {type(other).__name__} is no report"
            raise UsageError(problem, remedy="Give what llmtrap.audit or llmtrap.report.read.read_report returned")
        return compare(cast("Report", self), other)
