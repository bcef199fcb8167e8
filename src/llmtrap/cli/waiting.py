"""A word to whoever waits, where a start from a cold disk or a large header takes longer than people wait unasked."""

from __future__ import annotations

import sys
import threading

FIRST_AFTER = 1.5
"""Seconds after which it is said that the command is at work; each further word waits three times as long."""

STARTING = "still starting: loading libraries"
OPENING = "still opening what it was given"

_SILENT = {"-q", "--quiet", "-h", "--help", "--version", "--show-completion", "--install-completion"}
_THREAD = "llmtrap-waiting"
_spoke = threading.Event()
_stage = STARTING


def spoke() -> None:
    """Note that the command has said something itself: from then on nothing is said here."""
    if threading.current_thread().name != _THREAD:
        _spoke.set()


def begin_work() -> None:
    """Note that the command's own work begins."""
    global _stage  # noqa: PLW0603 - one process runs one command
    _stage = OPENING


def tell_who_waits(arguments: list[str], first_after: float = FIRST_AFTER) -> None:
    """From now on, while nothing is written to either stream, write a line to standard error now and then.

    Args:
        arguments: the command's own; where they ask for quiet, help or the version nothing is said.
        first_after: seconds until the first line.
    """
    if not _SILENT.intersection(arguments):
        threading.Thread(target=_tell, args=(first_after,), name=_THREAD, daemon=True).start()


def _tell(pause: float) -> None:
    while not _spoke.wait(pause):
        stream = sys.stderr
        try:
            stream.write(f"llmtrap: {_stage} …\n")
            stream.flush()
        except (AttributeError, OSError, ValueError):  # nobody can read it
            return
        pause *= 3
