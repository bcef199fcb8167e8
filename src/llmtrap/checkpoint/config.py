"""The checkpoint's config.json: read with limits, and asked for values whose type is checked at the point of use."""

from __future__ import annotations

from typing import Any

from llmtrap.checkpoint.sources.base import ByteRange, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.errors import CheckpointError

MAX_CONFIG = 16 << 20
# As much as one long text of that size takes: a million keys would take half a gigabyte.
MAX_CONFIG_MEMORY = 64 << 20

_NESTED = ("text_config", "language_config", "llm_config", "decoder")


def read_config(source: Source, name: str = "config.json") -> dict[str, Any]:
    """Parse config.json; empty where there is none.

    Raises:
        CheckpointError: too large, not JSON, or not an object.
    """
    file = next((file for file in source.files() if file.name == name), None)
    if file is None:
        return {}
    if file.size > MAX_CONFIG:
        problem = f"{file.size} bytes are too many for a configuration ({MAX_CONFIG} are the limit)"
        raise CheckpointError(problem, file=name, remedy="Fetch the file again")
    data = source.read(ByteRange(name, 0, file.size))
    return read_object(data, file=name, what="configuration", constants=True, memory=MAX_CONFIG_MEMORY)


def texts(config: dict[str, Any], key: str) -> tuple[str, ...]:
    """Every string under this key, at the top and in the nested configuration of a text model."""
    return tuple(value for value in _values(config, key) if isinstance(value, str))


def architectures(config: dict[str, Any]) -> tuple[str, ...]:
    """The classes that the checkpoint was saved from."""
    listed = config.get("architectures")
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()


def flag(config: dict[str, Any], key: str) -> bool | None:
    """The first true or false under this key, at the top or nested, or None."""
    return next((value for value in _values(config, key) if isinstance(value, bool)), None)


def integer(config: dict[str, Any], key: str) -> int | None:
    """The first positive integer under this key (`a.b` steps into `a`), at the top or nested, or None."""
    found = (value for value in _values(config, key) if type(value) is int and 0 < value < 1 << 40)
    return next(found, None)


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The first object under this key, at the top or nested, or an empty one."""
    return next((value for value in _values(config, key) if isinstance(value, dict)), {})


def _values(config: dict[str, Any], key: str) -> list[Any]:
    places = [config, *(config[name] for name in _NESTED if isinstance(config.get(name), dict))]
    found = []
    for place in places:
        value: Any = place
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found.append(value)
    return found
