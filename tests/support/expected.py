"""Whole expected documents, kept as files: `LLMTRAP_WRITE_EXPECTED=1 pytest` writes them anew for review."""

from __future__ import annotations

from pathlib import Path

from tests.support.surroundings import CALLERS


def assert_expected(path: Path, text: str) -> None:
    """Compare a text with the file that holds what is expected of it."""
    if CALLERS.get("LLMTRAP_WRITE_EXPECTED"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert text == path.read_text(encoding="utf-8"), f"differs from {path.name}"
