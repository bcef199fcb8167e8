"""What a callback does with a check's outcome, the same for every trainer: say it, stop, keep a checkpoint."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from llmtrap.integrations.checks import Check
from llmtrap.integrations.kept import CheckpointBeforeTrap
from llmtrap.integrations.monitor import TrapMonitor
from llmtrap.integrations.options import TrapOptions

logger = logging.getLogger("llmtrap")

Log = Callable[[dict[str, float]], None]


class TrapActions:
    """Takes the outcomes of a monitor's checks.

    Args:
        options: what is done about a new trap.
    """

    def __init__(self, options: TrapOptions):
        self.monitor = TrapMonitor(options)
        self._options = options
        self._kept = CheckpointBeforeTrap() if "keep" in options.policies else None
        self._said_late = False
        self.last: Check | None = None
        self.new_traps: list[tuple[int, str]] = []
        """Step and words of every new trap, in the order in which they were found."""

    @property
    def kept(self) -> Path | None:
        """The checkpoint kept from before the trap."""
        return None if self._kept is None else self._kept.kept

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was saved."""
        if self._kept is None:
            return
        with _said(f"the checkpoint {path} cannot be kept"):
            self._kept.saved(step, path)

    def look(self, log: Log, *, end: bool = False) -> bool:
        """Log the checks that ended, and act on their new traps.

        Args:
            log: the trainer's own way to log numbers.
            end: training ended: wait for the last check.

        Returns:
            Whether the training should stop.
        """
        stop = False
        for check in self.monitor.finish() if end else self.monitor.news():
            self.last = check
            metrics = check.metrics()
            metrics["llmtrap/skipped_checks"] = float(self.monitor.skipped)
            with _said("the numbers of a check cannot be logged"):
                log(metrics)
            stop = self._act(check) or stop
        if self.monitor.skipped and not self._said_late:
            self._said_late = True
            logger.warning(
                "a check takes longer than the %s steps between two: those that come due meanwhile are skipped",
                self._options.every,
            )
        if end and self._kept is not None:
            self._kept.drop_waiting()
        return stop and "stop" in self._options.policies

    def _act(self, check: Check) -> bool:
        if not check.new:
            if self._kept is not None:
                self._kept.clean(check.step)
            return False
        for trap in check.new:
            self.new_traps.append((check.step, trap.words))
            logger.warning("step %d: a new Correlation Trap in %s", check.step, trap.words)
        if self._kept is not None:
            kept = self._kept.trapped()
            logger.warning(
                "the last checkpoint before it: %s", kept if kept is not None else "none was saved and checked before"
            )
        if "stop" in self._options.policies:
            logger.warning("training stops, as on_trap asks")
        return True


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Nothing that a callback does on the side may end the training."""
    try:
        yield
    except Exception as error:
        logger.warning("%s, and training goes on: %s: %s", what, type(error).__name__, error)
