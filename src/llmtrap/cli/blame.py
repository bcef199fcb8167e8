"""Who gave a value that a message blames on an option: a variable of the environment may have."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

_OPTION = re.compile(r"--([a-z][a-z-]*[a-z])")


def variable_of(option: str) -> str:
    """The variable that stands for an option, by its long name without dashes."""
    return f"LLMTRAP_{option.replace('-', '_').upper()}"


def from_environment(message: str, arguments: Sequence[str] | None = None) -> str:
    """What to add to a message that names options: which of them the environment gave, or nothing.

    Args:
        message: it names options as they are typed.
        arguments: the words of the command; those of this process by default.
    """
    typed = {word.partition("=")[0] for word in (sys.argv[1:] if arguments is None else arguments)}
    named = dict.fromkeys(_OPTION.findall(message))
    given = [variable_of(name) for name in named if variable_of(name) in os.environ and f"--{name}" not in typed]
    return f" (here the environment says so: {', '.join(given)})" if given else ""
