"""Check the weights of a run while it trains, in the background and on the CPU; the same for every trainer.

At a step the weights are copied, which is all that training waits for. A thread then audits the copy where it lies, in
a worker process where there is much to do: the certificate first, shuffles for what it leaves open, and only matrices
that changed. Nothing that goes wrong there ends the training.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrap.errors import LlmtrapError
from llmtrap.integrations.checking import Checks
from llmtrap.integrations.checks import Check
from llmtrap.integrations.copying import WeightCopy, config_of
from llmtrap.integrations.options import TrapOptions
from llmtrap.trajectory.write import write_trajectory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("llmtrap")


class TrapMonitor:
    """Checks a run.

        monitor = TrapMonitor(TrapOptions(every=50))
        monitor.check(0, model)
        ...
        for check in monitor.news():
            print(check.metrics())

    Args:
        options: what to check.
        name: what to call the run.
    """

    def __init__(self, options: TrapOptions, name: str = "run"):
        self.options = options
        self.skipped = 0
        self.held_up = 0.0
        self._copy = WeightCopy()
        self._thread: threading.Thread | None = None
        self._found: queue.SimpleQueue[Check] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._checks = Checks(options, name, self._closing)
        self._said: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether a check is running."""
        return self._thread is not None and self._thread.is_alive()

    def check(self, step: int, module: torch.nn.Module) -> bool:
        """Copy the weights and check them in the background; False where the check before still runs.

        Nothing is raised: what goes wrong is said once.
        """
        if self.busy:
            if self.options.late == "skip":
                self.skipped += 1
                return False
            self.wait()
        start = time.perf_counter()
        try:
            tensors = self._copy.take(module)
        except Exception as error:
            self._found.put(Check(step, error=_words(error)))
            return False
        self.held_up += time.perf_counter() - start
        config = config_of(module)
        self._thread = threading.Thread(
            target=self._work, args=(step, tensors, config), name=f"llmtrap-step-{step}", daemon=True
        )
        self._thread.start()
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the check that runs is done; whether it is."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy

    def news(self) -> list[Check]:
        """The checks that ended since the last call, oldest first. Of those that failed each reason is said once."""
        found: list[Check] = []
        while True:
            try:
                check = self._found.get_nowait()
            except queue.Empty:
                return found
            if check.error is None:
                found.append(check)
            for words in (check.error, check.problem):
                if words is not None and words not in self._said:
                    self._said.add(words)
                    logger.warning("the check of step %d failed, and training goes on: %s", check.step, words)

    def finish(self) -> list[Check]:
        """Wait for the last check as long as the options say, write the trajectory, and give what is new."""
        if not self.wait(self.options.finish_seconds):
            self._closing.set()
            logger.warning("the last check did not end within %.0f s, and is given up", self.options.finish_seconds)
            return self.news()
        trajectory = self._checks.trajectory
        if self.options.trajectory is not None and trajectory is not None:
            try:
                write_trajectory(trajectory, Path(self.options.trajectory))
            except LlmtrapError as error:
                logger.warning("the trajectory is not written: %s", error.message)
        return self.news()

    def _work(self, step: int, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        try:
            found = self._checks.check(step, tensors, config)
            self._found.put(replace(found, seconds=time.perf_counter() - start))
        except Exception as error:
            self._found.put(Check(step, error=_words(error)))


def _words(error: Exception) -> str:
    return error.message if isinstance(error, LlmtrapError) else f"{type(error).__name__}: {error}"
