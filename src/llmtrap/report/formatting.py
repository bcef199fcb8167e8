"""Numbers and words as people read them, the same in every output."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrap.printable import printable

__all__ = ["duration", "fixed", "join", "name_some", "nouns", "number", "plural", "printable", "size"]

_IRREGULAR = {"matrix": "matrices", "entry": "entries", "shuffle": "shuffles", "trajectory": "trajectories"}


def name_some(names: Sequence[str], limit: int = 5, longest: int = 160) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(printable(name, longest) for name in names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def plural(count: int, noun: str) -> str:
    """`1 matrix`, `2 matrices`, `1,658 matrices`."""
    return f"{count:,} {noun if count == 1 else nouns(noun)}"


def nouns(noun: str) -> str:
    """The plural of a noun of this package."""
    return _IRREGULAR.get(noun, noun + "s")


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent where people would not write one; `–` for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e6:
        text = f"{float(f'{value:.{digits}g}'):,.10f}".rstrip("0").rstrip(".")
    else:
        text = f"{value:.{digits - 1}e}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def fixed(value: float | None, decimals: int = 2) -> str:
    """A number with so many decimals, as a column of a table wants it; `–` for None."""
    if value is None:
        return "–"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def size(count: int) -> str:
    """Bytes in decimal units: `417 B`, `13.8 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float) -> str:
    """`0.4 s`, `41 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]
