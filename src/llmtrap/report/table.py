"""A report as a table: one row a matrix, plain numbers and texts, for CSV, Parquet, pandas and polars.

Every such output has these columns and no others.
"""

from __future__ import annotations

from typing import Any

from llmtrap.report.document import Matrix, Report
from llmtrap.report.facts import state, strongest
from llmtrap.report.spreadsheet import csv_text

COLUMNS = (
    "id", "tensor", "part", "layer", "role", "expert", "rows", "columns", "encoding", "bits", "alpha", "alpha_sigma",
    "alpha_band", "alpha_reliable", "alpha_xmin", "alpha_ks", "spectral_norm", "frobenius_norm", "stable_rank",
    "hard_rank", "entropy", "alpha_weighted", "state", "traps", "traps_low", "traps_high", "mean_shifts",
    "traps_reliable", "method", "strength", "cause", "cause_row", "cause_column", "cause_value", "cause_sigmas",
    "kurtosis", "max_sigmas", "seconds",
)  # fmt: skip


def to_csv(report: Report) -> str:
    """The matrices in the order of the report; what was not measured is an empty cell.

    Names from a checkpoint are made printable, and one that a spreadsheet would take for a formula gets an apostrophe.
    """
    return csv_text([COLUMNS, *map(row, report.matrices)])


def columns(report: Report) -> dict[str, list[Any]]:
    """The same by columns; None where a matrix has no such number."""
    rows = [row(matrix) for matrix in report.matrices]
    return {name: [cells[at] for cells in rows] for at, name in enumerate(COLUMNS)}


def row(m: Matrix) -> tuple[str | float | bool | None, ...]:
    """One matrix, in the order of `COLUMNS`."""
    alpha, spectrum, traps, trap = m.alpha, m.spectrum, m.traps, strongest(m)
    cause = trap.cause if trap is not None else None
    return (
        m.id, m.tensor, m.part, m.layer, m.role, m.expert, m.shape[0], m.shape[1], m.encoding, m.bits,
        *((alpha.value, alpha.sigma, alpha.band, alpha.reliable, alpha.xmin, alpha.ks) if alpha else (None,) * 6),
        *(
            (spectrum.spectral_norm, spectrum.frobenius_norm, spectrum.stable_rank, spectrum.hard_rank,
             spectrum.entropy, spectrum.alpha_weighted)
            if spectrum else (None,) * 6
        ),
        state(m),
        *(
            (traps.centred, traps.low, traps.high, traps.mean_shift, traps.reliable, traps.method)
            if traps else (None,) * 6
        ),
        trap.strength if trap is not None else None,
        *((cause.kind, cause.row, cause.column, cause.value, cause.sigmas) if cause else (None,) * 5),
        *((traps.kurtosis, traps.max_sigmas) if traps else (None,) * 2),
        m.seconds,
    )  # fmt: skip
