"""Standard output and standard error as Rich writes to them."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO, TypedDict

from rich.console import Console


class _Form(TypedDict, total=False):
    force_terminal: bool
    color_system: Literal["standard"]


def _form(stream: TextIO) -> _Form:
    """FORCE_COLOR asks for colours in a pipe; Rich would take it for a terminal too, and wrap lines and draw bars."""
    if stream.isatty():
        return {}
    return {"force_terminal": False, "color_system": "standard"} if os.environ.get("FORCE_COLOR") else {}


class Output(Console):
    """Standard output, that leaves it to `guarded` what happens when its reader goes away."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, quiet=quiet, **_form(sys.stdout))

    def on_broken_pipe(self) -> None:
        """Tell it on."""
        raise BrokenPipeError


class Messages(Console):
    """Standard error: what cannot be said is left unsaid, since the exit code still counts."""

    def __init__(self) -> None:
        super().__init__(stderr=True, markup=False, emoji=False, highlight=False, **_form(sys.stderr))

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
