"""Names out of files of unknown origin: made safe to show, and put into the order a reader expects."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)")
_SHOWN = 300


def printable(name: str, limit: int = _SHOWN) -> str:
    """The name with control, format and unassigned characters escaped, cut where it is absurdly long.

    A terminal escape sequence or a right-to-left override in a tensor's name must not reach a screen or a report.
    """
    shown = name[:limit]
    if not shown.isprintable():
        shown = "".join(character if character.isprintable() else _escaped(character) for character in shown)
    return shown if len(name) <= limit else f"{shown}… ({len(name)} characters)"


def encodable(name: str) -> bool:
    """Whether the name can be written as UTF-8: lone surrogates, from JSON escapes or odd file names, cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which layer 2 comes before layer 10, and no two names are equal.

    Digits are compared by their length and then as text: they are never made a number, which thousands of them refuse.
    """
    return *(_part_key(part) for part in _DIGITS.split(name) if part), (-1, 0, name)


def _part_key(part: str) -> tuple[int, int, str]:
    if not part.isdecimal():
        return 1, 0, part
    digits = part.lstrip("0")
    return 0, len(digits), digits


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
