"""JSON of unknown origin: read with limits on size, structure and depth, and with duplicate keys refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from llmtrap.checkpoint.disguises import disguise
from llmtrap.checkpoint.sources.base import Bytes
from llmtrap.errors import CheckpointError

MAX_DEPTH = 64
MAX_MEMORY = 320_000_000
"""What parsing one document may take, in bytes: with the interpreter and its libraries that stays under 500 MB."""

# Bytes of one object or one list item at the most, beside the characters of its strings: measured on CPython 3.11.
_OBJECT = 300
_ITEM = 80
_COUNTED = 1 << 20


def read_object(
    data: Bytes, *, file: str, what: str, constants: bool = False, memory: int = MAX_MEMORY
) -> dict[str, Any]:
    """Parse bytes that must hold one JSON object.

    The structure is counted in the raw bytes first, so that a small file cannot grow into gigabytes of objects, nor a
    single wide character make a long text four times as large.

    Args:
        data: the bytes, already bounded in length by the caller.
        file: the file they come from, for errors.
        what: what the bytes are meant to be, for errors.
        constants: take Infinity and NaN, which are no JSON and which Python writes into configurations all the same;
            and a byte order mark, which editors put before it.
        memory: the most bytes that reading may take, as `memory_of` counts them.

    Raises:
        CheckpointError: not UTF-8, not JSON, not an object, too large or too deep, or with a key given twice.
    """
    if (needed := memory_of(data)) > memory:
        problem = f"the {what} would take {needed >> 20} MiB to read, more than any checkpoint's ({memory >> 20} MiB)"
        raise CheckpointError(problem, file=file, remedy=_REMEDY)
    try:
        text = str(data.data, "utf-8-sig" if constants else "utf-8")
        parse_constant = None if constants else _no_constant
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=parse_constant)
    except RecursionError as error:
        raise CheckpointError(f"the {what} is nested too deeply", file=file, remedy=_REMEDY) from error
    except (UnicodeDecodeError, ValueError) as error:
        if (other := disguise(data, file)) is not None:
            raise other from None
        raise CheckpointError(f"the {what} is not valid JSON ({_short(error)})", file=file, remedy=_REMEDY) from error
    if not isinstance(value, dict):
        problem = f"the {what} is a JSON {type(value).__name__}, and should be an object"
        raise CheckpointError(problem, file=file, remedy=_REMEDY)
    if _too_deep(value, MAX_DEPTH):
        raise CheckpointError(f"the {what} is nested over {MAX_DEPTH} deep", file=file, remedy=_REMEDY)
    return value


_REMEDY = "The file is damaged or not what its name says: fetch it again"


def memory_of(data: Bytes) -> int:
    """What the bytes, their text and the objects parsed from it can take at the most, from the bytes alone."""
    objects = items = widest = 0
    for start in range(0, data.size, _COUNTED):
        piece = data[start : start + _COUNTED]
        text = piece.tobytes()
        objects += text.count(b"{")
        items += text.count(b",") + text.count(b"[")
        widest = max(widest, int(piece.max(initial=0)))
    # CPython keeps a text in one, two or four bytes a character, as its widest character needs.
    width = 4 if widest >= 0xF0 else 2 if widest >= 0xC4 else 1
    return data.size * (1 + 2 * width) + objects * _OBJECT + items * _ITEM


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!r} is given twice")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _short(error: Exception) -> str:
    """The message without the document that a decode error carries along, and without advice for programmers."""
    return str(error).partition("; use sys.")[0][:200]


def _too_deep(value: dict[str, Any], allowed: int) -> bool:
    level: list[Any] = [value]
    for _ in range(allowed):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True
