"""Rows of a CSV file that a spreadsheet shows and does not run."""

from __future__ import annotations

from collections.abc import Iterable

from llmtrap.printable import printable

# A cell that begins so is taken for a formula; the wide forms too where East Asian text is typed.
_FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
            "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
# Where the comma is a decimal point, spreadsheets part cells at a semicolon.
_PARTING = (",", ";", "\t", '"')


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, with lines that end in a line feed.

    None is an empty cell, truth is `true` or `false`. Texts are made printable, and one that would be taken for a
    formula gets an apostrophe before it.
    """
    return "".join(",".join(map(_cell, row)) + "\n" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    text = printable(value)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in _PARTING) else text
