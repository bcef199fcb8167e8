"""Where the command line speaks: reports to standard output, progress and errors to standard error, exit codes."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from llmtrap.cli.blame import from_environment
from llmtrap.cli.ending import interruptible
from llmtrap.cli.machine import machine_fault
from llmtrap.cli.streams import StandardOutputError, is_broken, silence
from llmtrap.cli.waiting import begin_work
from llmtrap.errors import LlmtrapError
from llmtrap.printable import printable
from llmtrap.processes.interrupts import Interrupted, received

if TYPE_CHECKING:
    from rich.console import Console

EXIT_DONE = 0
EXIT_COULD_NOT = 2
EXIT_IN_PART = 3


def output(*, quiet: bool = False) -> Console:
    """Standard output. Names are never read as markup or emoji, since they come from files."""
    from llmtrap.cli.consoles import Output

    return Output(quiet)


def messages() -> Console:
    """Standard error, for progress and messages."""
    from llmtrap.cli.consoles import Messages

    return Messages()


@dataclass
class Outcome:
    """How a command ends: its code is decided before anything is shown, so that a reader who leaves changes nothing."""

    code: int = EXIT_DONE


@contextmanager
def guarded(*, verbose: bool = False, on_interrupt: str | None = None) -> Iterator[Outcome]:
    """Turn what went wrong into one message and the right exit code; a traceback only with `--verbose`.

    Args:
        verbose: print the traceback too.
        on_interrupt: what to say after Ctrl-C, SIGTERM or SIGHUP.
    """
    outcome = Outcome()
    begin_work()
    _tell_warnings()
    try:
        with interruptible():
            try:
                yield outcome
            except typer.Exit as end:
                outcome.code = end.exit_code
            except BaseException:
                # Cleaning up after a signal may fail by itself: the terminal that it would restore is closed.
                if number := received():
                    raise Interrupted(number) from None
                raise
            sys.stdout.flush()
    except LlmtrapError as error:
        _trace(verbose=verbose)
        _say(f"llmtrap: {error.message}{from_environment(error.message)}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        _say(on_interrupt or "llmtrap: interrupted")
        raise typer.Exit(128 + (stop.number if isinstance(stop, Interrupted) else signal.SIGINT)) from None
    except (BrokenPipeError, StandardOutputError) as error:
        silence(sys.stdout)
        if not is_broken(error):
            _say(f"llmtrap: {machine_fault(error)}")
            outcome.code = outcome.code or EXIT_COULD_NOT
        # The reader of our output went away (`| head`): nothing more can be said, and what was decided holds.
        raise typer.Exit(outcome.code) from None
    except Exception as error:
        _trace(verbose=verbose)
        _say(f"llmtrap: {machine_fault(error) or _own_fault(error)}")
        raise typer.Exit(EXIT_COULD_NOT) from None
    raise typer.Exit(outcome.code)


class _Warnings(logging.Handler):
    """What the library warns of while a command waits, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(f"llmtrap: {record.getMessage()}")


def _tell_warnings() -> None:
    logger = logging.getLogger("llmtrap")
    if not any(isinstance(handler, _Warnings) for handler in logger.handlers):
        logger.addHandler(_Warnings(logging.WARNING))


def _own_fault(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {error}. This is a fault in llmtrap: "
        "please report it with the output of the same command and --verbose"
    )


def _trace(*, verbose: bool) -> None:
    if verbose:
        _say(traceback.format_exc())


def _say(message: str) -> None:
    # Lines are ours; a line separator within a name is not one of them. Standard error may be a closed terminal.
    with suppress(OSError):
        messages().print("\n".join(printable(line) for line in message.split("\n")), soft_wrap=True)
