"""The command line as it is declared: its commands, their options, defaults and choices."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_type_hints

from typer.models import OptionInfo

from llmtrap.cli.commands import NAMES, function_of


@dataclass(frozen=True)
class DeclaredOption:
    """One option: `choices` are the words it takes, where it takes no others."""

    names: tuple[str, ...]
    help: str
    envvar: str | None
    default: object
    choices: tuple[str, ...]


def commands() -> dict[str, Callable[..., Any]]:
    """The function of every command, by its name."""
    return {name: function_of(name) for name in NAMES}


def options(command: str) -> dict[str, DeclaredOption]:
    """The options of a command, by their long names."""
    function = commands()[command]
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *details = get_args(hints[name])
        for info in details:
            if isinstance(info, OptionInfo):
                option = _declared(name, kind, info, parameter.default)
                found[option.names[0]] = option
    return found


def _declared(name: str, kind: Any, info: OptionInfo, default: object) -> DeclaredOption:
    # Typer keeps the first name given to Option() in its place for the default
    given = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]
    names = sorted((word for word in given if word.startswith("-")), key=len, reverse=True)
    words = [word for word in (kind, *get_args(kind)) if isinstance(word, type) and issubclass(word, Enum)]
    return DeclaredOption(
        names=tuple(names) or (f"--{name.replace('_', '-')}",),
        help=info.help or "",
        envvar=str(info.envvar) if info.envvar else None,
        default=default.value if isinstance(default, Enum) else default,
        choices=tuple(str(member.value) for word in words for member in word),
    )
