"""Reports of older schemas, turned into the present one: nothing is added that the old report did not know."""

from __future__ import annotations

from typing import Any, Final

from llmtrap.report.document import LeftOut

OLDER: Final = "llmtrap.report/1"

# How a report of the first schema worded why a tensor was left out, and what that counts as now. What is not here
# counts as unmeasured weights.
_KINDS: Final[tuple[tuple[str, LeftOut], ...]] = (
    ("one-dimensional", "one_dimensional"),
    ("scalar", "one_dimensional"),
    ("a stack of biases", "one_dimensional"),
    ("integer buffer", "buffer"),
    ("excluded by --exclude", "on_request"),
    ("not included by --include", "on_request"),
    ("a second copy", "file_not_read"),
    ("complex numbers", "unreadable"),
)


def older_kind(tensor: str, reason: str) -> LeftOut:
    """The class in which a tensor that an older report left out is counted now."""
    if tensor.endswith("(file)"):
        return "file_not_read"
    return next((kind for start, kind in _KINDS if reason.startswith(start)), "unmeasured")


def older_level(summary: dict[str, Any], *, unknown: bool) -> str:
    """The one word for programs, from the counts that the first schema had."""
    if summary.get("non_finite"):
        return "broken"
    if not summary.get("matrices"):
        return "nothing_measured"
    if summary.get("with_traps"):
        return "unusual"
    return "partly_measured" if unknown else "usual"
