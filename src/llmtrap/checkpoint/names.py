"""Names out of files of unknown origin: made safe to show, and put into the order a reader expects."""

from __future__ import annotations

import re
import sys

from llmtrap.printable import printable as _printable

MAX_NAME = 1000
"""Characters that a tensor's or a shard's name may have; no real one has 300."""

_DIGITS = re.compile(r"\d+")
_SHOWN = 300


def printable(name: str, limit: int = _SHOWN) -> str:
    """The name as `llmtrap.printable` shows it, cut where it is absurdly long."""
    return _printable(name, limit)


def encodable(name: str) -> bool:
    """Whether the name can be written as UTF-8: lone surrogates, from JSON escapes or odd file names, cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_key(name: str) -> tuple[str, str]:
    """A sort key under which layer 2 comes before layer 10, and no two names are equal.

    Digits are compared by their length and then as text: they are never made a number, which thousands of them refuse.
    The key is text too, hardly longer than the name: a tuple of parts would be a hundred times as large.
    """
    return _DIGITS.sub(_with_length, name), name


def _with_length(found: re.Match[str]) -> str:
    digits = found[0].lstrip("0")
    return f"\0{chr(min(len(digits), sys.maxunicode))}{digits}"
