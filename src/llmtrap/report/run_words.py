"""When a report was made and how long it took, in words."""

from __future__ import annotations

from llmtrap.report.document import Report
from llmtrap.report.formatting import duration


def run_words(report: Report) -> str:
    """`2026-11-27 10:31 UTC, 41 s`; where the journal did a part, what the measuring took stands beside it."""
    took = duration(report.summary.seconds)
    if report.run is None:
        return took
    if report.summary.remembered is not None:
        took = f"{took}; the measuring took {duration(report.run.measuring_seconds)}"
    return f"{report.run.finished[:16].replace('T', ' ')} UTC, {took}"
