"""SECURITY.md names the test of each point, and the tests that it names exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
POINTS = TEXT.partition("## What an attacker gets")[2].partition("\n## ")[0]
ROWS = [line for line in POINTS.splitlines() if line.startswith("| ")][1:]
NAMED = re.compile(r"`(test_\w+)`")


@cache
def there() -> frozenset[str]:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_point_names_a_test_that_there_is(row: str) -> None:
    *_, shown = row.strip("| ").split(" | ")
    named = NAMED.findall(shown)
    assert named
    assert not set(named) - there()


def test_every_file_that_is_named_is_there() -> None:
    assert len(ROWS) > 25
    for path in re.findall(r"`(tests/[\w./]+)`", TEXT):
        assert (ROOT / path).exists(), path
