"""The command line: one file a command, and nothing in it but parsing, calling and showing.

Nothing is imported here before it is settled how signals end the process: the rest takes a second to import.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrap.cli.commands import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from llmtrap.cli.commands import app

        return app
    raise AttributeError(name)


LEAST_ADDRESS_SPACE = 390_000 << 10
"""Bytes: with less (`ulimit -v`) the libraries do not load, or OpenBLAS waits for ever for threads it cannot start."""


def main() -> None:
    """Run the command line. What fails before a command begins ends with 2: 1 is a gate's verdict alone."""
    from llmtrap.cli.ending import end_at_once

    end_at_once()
    from llmtrap.systems.process import address_space_limit

    limit = address_space_limit()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        _end(
            f"{limit >> 10:,} kB of address space are too few to load the libraries. "
            f"Raise the limit (ulimit -v {LEAST_ADDRESS_SPACE >> 10} or more)"
        )
    from llmtrap.cli.waiting import tell_who_waits

    tell_who_waits(sys.argv[1:])
    try:
        from llmtrap.cli.commands import app
        from llmtrap.cli.streams import install, whoever_reads

        install()
        with whoever_reads():
            app()
    except Exception as error:  # of an import: a command says by itself what went wrong in it
        from llmtrap.cli.machine import machine_fault

        _end(machine_fault(error) or f"{type(error).__name__}: {error}. Install llmtrap anew, or report this")


def _end(message: str) -> None:
    from llmtrap.printable import printable

    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"llmtrap: {printable(message)}\n")
    sys.exit(2)
