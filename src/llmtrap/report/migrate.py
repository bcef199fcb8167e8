"""Reports of older schemas, turned into the present one: nothing is added that the old report did not know."""

from __future__ import annotations

import json
from typing import Any, Final

from llmtrap.report.document import SCHEMA, LeftOut

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


def migrated(content: bytes) -> bytes | None:
    """The document in the present schema; None where this is no report of an older one."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schema") != OLDER:
        return None
    coverage, summary = document.get("coverage"), document.get("summary")
    if not isinstance(coverage, dict) or not isinstance(summary, dict):
        return None
    for item in _objects(coverage.get("skipped")):
        item["kind"] = _kind(str(item.get("tensor")), str(item.get("reason")))
    unknown = any(item["kind"] == "unmeasured" for item in _objects(coverage.get("skipped")))
    document["schema"] = SCHEMA
    summary["level"] = _level(summary, unknown=unknown or bool(coverage.get("failed")))
    return json.dumps(document).encode()


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _kind(tensor: str, reason: str) -> LeftOut:
    if tensor.endswith("(file)"):
        return "file_not_read"
    return next((kind for start, kind in _KINDS if reason.startswith(start)), "unmeasured")


def _level(summary: dict[str, Any], *, unknown: bool) -> str:
    """The one word for programs, from the counts that the first schema had."""
    if summary.get("non_finite"):
        return "broken"
    if not summary.get("matrices"):
        return "nothing_measured"
    if summary.get("with_traps"):
        return "unusual"
    return "partly_measured" if unknown else "usual"
