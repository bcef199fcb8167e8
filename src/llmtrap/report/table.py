"""The CSV output: one line a matrix, columns in snake_case, for spreadsheets and data frames."""

from __future__ import annotations

from llmtrap.report.document import Matrix, Report
from llmtrap.report.facts import state, strongest
from llmtrap.report.spreadsheet import csv_text

COLUMNS = (
    "id", "tensor", "part", "layer", "role", "expert", "rows", "columns", "encoding", "bits", "alpha", "alpha_sigma",
    "alpha_band", "alpha_reliable", "alpha_xmin", "alpha_ks", "spectral_norm", "frobenius_norm", "stable_rank",
    "entropy", "alpha_weighted", "state", "traps", "traps_low", "traps_high", "mean_shifts", "method", "strength",
    "cause", "cause_row", "cause_column", "cause_value", "cause_sigmas", "kurtosis", "max_sigmas", "seconds",
)  # fmt: skip


def to_csv(report: Report) -> str:
    """The matrices in the order of the report; what was not measured is an empty cell.

    Names from a checkpoint are made printable, and one that a spreadsheet would take for a formula gets an apostrophe.
    """
    return csv_text([COLUMNS, *map(_row, report.matrices)])


def _row(m: Matrix) -> tuple[object, ...]:
    alpha, spectrum, traps, trap = m.alpha, m.spectrum, m.traps, strongest(m)
    cause = trap.cause if trap is not None else None
    return (
        m.id, m.tensor, m.part, m.layer, m.role, m.expert, m.shape[0], m.shape[1], m.encoding, m.bits,
        *((alpha.value, alpha.sigma, alpha.band, alpha.reliable, alpha.xmin, alpha.ks) if alpha else (None,) * 6),
        *(
            (spectrum.spectral_norm, spectrum.frobenius_norm, spectrum.stable_rank, spectrum.entropy,
             spectrum.alpha_weighted)
            if spectrum else (None,) * 5
        ),
        state(m),
        *((traps.centred, traps.low, traps.high, traps.mean_shift, traps.method) if traps else (None,) * 5),
        trap.strength if trap is not None else None,
        *((cause.kind, cause.row, cause.column, cause.value, cause.sigmas) if cause else (None,) * 5),
        *((traps.kurtosis, traps.max_sigmas) if traps else (None,) * 2),
        m.seconds,
    )  # fmt: skip
