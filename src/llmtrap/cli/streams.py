"""Standard output and standard error as the command line uses them: nothing on them can steer a terminal or a runner.

Every output makes its names printable by itself; these streams are the last place that everything passes, tracebacks,
the parser's own messages and libraries' warnings included.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from llmtrap.cli.waiting import spoke
from llmtrap.printable import break_commands, escaped

# What rich writes where colours are forced upon a pipe.
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
# As much of an unfinished line as a command's opening can be split over.
_KEPT = 80


class StandardOutputError(Exception):
    """Standard output cannot be written: its reader is gone, or the disk behind it is full.

    No OSError: the library that parses arguments ends with 1 on one whose reader is gone, which is a gate's verdict.
    """

    def __init__(self, cause: OSError):
        super().__init__(cause.strerror)
        self.errno = cause.errno
        self.strerror = cause.strerror


class _Stream(io.TextIOWrapper):
    """A text stream that breaks what a runner would take for a command, also where it is written piece by piece."""

    _line = ""

    def write(self, text: str) -> int:
        """Write a text of this program."""
        line = self._line
        safe = break_commands(line + _without_controls(text, terminal=self._is_terminal()))[len(line) :]
        self._line = (line + safe).rpartition("\n")[2][-_KEPT:]
        self._put(safe)
        return len(text)

    def write_commands(self, text: str) -> None:
        """Write lines that are meant to be a runner's commands."""
        self._put(text)

    def _put(self, text: str) -> None:
        spoke()
        super().write(text)

    def _is_terminal(self) -> bool:
        return not self.closed and self.isatty()


class OutputStream(_Stream):
    """Standard output: that it cannot be written is told by an error of its own."""

    def _put(self, text: str) -> None:
        try:
            super()._put(text)
        except OSError as error:
            raise StandardOutputError(error) from error

    def flush(self) -> None:
        """Write out what is held back."""
        try:
            super().flush()
        except OSError as error:
            raise StandardOutputError(error) from error


class MessageStream(_Stream):
    """Standard error: where nobody can read it the command goes on, for its exit code still counts."""

    def _put(self, text: str) -> None:
        try:
            super()._put(text)
        except OSError:
            silence(self)

    def flush(self) -> None:
        """Write out what is held back."""
        try:
            super().flush()
        except OSError:
            silence(self)


def install() -> None:
    """Put these streams in the place of the interpreter's; closed ones are opened on nothing first.

    A descriptor left closed would be given to the next file that is opened, and prints would land in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _wrapped(sys.stdout, 1, OutputStream)
    sys.stderr = _wrapped(sys.stderr, 2, MessageStream)


@contextmanager
def whoever_reads() -> Iterator[None]:
    """Let what ends the program end it with its own code, also where the reader of standard output has gone."""
    code: str | int | None = 0
    try:
        try:
            yield
        except SystemExit as end:
            code = end.code
            raise
        finally:
            sys.stdout.flush()
    except StandardOutputError as error:
        silence(sys.stdout)
        if not is_broken(error):
            raise
        sys.exit(code)


def silence(stream: TextIO) -> None:
    """Turn a stream that cannot be written to nothing, so that what it holds back fails no more."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), stream.fileno())


def write_commands(text: str) -> None:
    """Print lines that are meant to be a runner's commands."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.write_commands(text)
    else:
        sys.stdout.write(text)


def is_broken(error: OSError | StandardOutputError) -> bool:
    """Whether the reader went away, as `head` does when it has enough."""
    return error.errno == errno.EPIPE


def _wrapped(stream: TextIO | None, number: int, kind: type[_Stream]) -> TextIO:
    if stream is None:
        raw: BinaryIO = open(number, "wb", closefd=False)  # noqa: SIM115 - stays open to the end
        encoding = "utf-8"
    elif isinstance(stream, io.TextIOWrapper):
        stream.flush()
        raw, encoding = stream.detach(), stream.encoding
    else:
        return stream
    at_once = number == 2 or os.isatty(number)
    # Where a terminal or a log has no α, a mark in its place is better than no report.
    return kind(raw, encoding=encoding, errors="replace", line_buffering=at_once)


def _without_controls(text: str, *, terminal: bool) -> str:
    """The text with control characters spelled out, but for line ends, tabs and colours; a terminal is left to rich."""
    if terminal or (text.isascii() and text.replace("\n", "").isprintable()):
        return text
    parts = _COLOUR.split(text)
    return "".join(part if _COLOUR.fullmatch(part) else _plain(part) for part in parts)


def _plain(text: str) -> str:
    return "\n".join("\t".join(escaped(cell) for cell in line.split("\t")) for line in text.split("\n"))
