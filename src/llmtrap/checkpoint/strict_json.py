"""JSON of unknown origin: read with limits on size, structure and depth, and with duplicate keys refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from llmtrap.checkpoint.sources.base import Bytes
from llmtrap.errors import CheckpointError

MAX_DEPTH = 64
MAX_OBJECTS = 1_000_000
MAX_ITEMS = 20_000_000


def read_object(data: Bytes, *, file: str, what: str) -> dict[str, Any]:
    """Parse bytes that must hold one JSON object.

    The structure is counted in the raw bytes first, so that a small file cannot grow into gigabytes of objects.

    Args:
        data: the bytes, already bounded in length by the caller.
        file: the file they come from, for errors.
        what: what the bytes are meant to be, for errors.

    Raises:
        CheckpointError: not UTF-8, not JSON, not an object, too large or too deep, or with a key given twice.
    """
    raw = data.tobytes()
    if raw.count(b"{") > MAX_OBJECTS or raw.count(b",") > MAX_ITEMS:
        problem = f"the {what} has more entries than any checkpoint ({MAX_OBJECTS} objects are the limit)"
        raise CheckpointError(problem, file=file, remedy=_REMEDY)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise CheckpointError(f"the {what} is nested too deeply", file=file, remedy=_REMEDY) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"the {what} is not valid JSON ({_short(error)})", file=file, remedy=_REMEDY) from error
    if not isinstance(value, dict):
        problem = f"the {what} is a JSON {type(value).__name__}, and should be an object"
        raise CheckpointError(problem, file=file, remedy=_REMEDY)
    if _too_deep(value, MAX_DEPTH):
        raise CheckpointError(f"the {what} is nested over {MAX_DEPTH} deep", file=file, remedy=_REMEDY)
    return value


_REMEDY = "The file is damaged or not what its name says: fetch it again"


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
    """The message without the document that a decode error carries along."""
    return str(error)[:200]


def _too_deep(value: dict[str, Any], allowed: int) -> bool:
    level: list[Any] = [value]
    for _ in range(allowed):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True
