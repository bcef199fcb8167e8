"""A trap's cause as findings name it."""

from __future__ import annotations

from llmtrap.spectra.measured import Cause


def cause_name(cause: Cause) -> str:
    """The cause as a fingerprint holds it: its kind, and the place of an entry."""
    return cause.kind if cause.row is None else f"{cause.kind}:{cause.row}:{cause.column}"


def cause_words(cause: Cause) -> str:
    """The cause in words, with the entry's place and size."""
    if cause.kind == "mean_shift":
        return "the mean of all entries moved off zero"
    if cause.kind == "heavy_tail" or cause.row is None or cause.column is None:
        return "many moderately large entries (a heavy tail)"
    size = f", {abs(cause.sigmas):.3g} standard deviations from the mean" if cause.sigmas is not None else ""
    return f"the entry at row {cause.row:,}, column {cause.column:,}{size}"
