"""Follow many runs at a time, one process each: train, measure every checkpoint, carry on where a kill left off."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from llmtrap.calibrate.document import CaseStudy
from llmtrap.calibrate.history import History
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.settings import FailedRun, PlannedRun, RunEvent
from llmtrap.errors import MissingExtraError
from llmtrap.orphans import end_with_parent

if TYPE_CHECKING:
    import torch

Listener = Callable[[RunEvent], None]
Result = TypeVar("Result")


def follow(run: PlannedRun, tell: Listener) -> None:
    """Train one run to its end in this process and measure every checkpoint that is not measured yet.

    Raises:
        FloatingPointError: the training diverged.
    """
    from llmtrap.calibrate.data import task_data
    from llmtrap.calibrate.measuring import measure
    from llmtrap.calibrate.training import train

    recipe = run.recipe
    if not run.train and not run.folder.exists():
        return
    data = task_data(recipe, run.seed, run.data)
    folder = RunFolder(run.folder)
    folder.claim(recipe, run.seed, data)
    measured = {int(line["step"]) for line in folder.measures()}

    def look(step: int) -> None:
        if step in measured:
            return
        found = measure(recipe, folder.load_weights(step), data, run.seed, step, folder.seconds_at(step))
        folder.append_measure(found.model_dump(mode="json"))
        measured.add(step)
        tell(RunEvent(run.name, step, recipe.steps, found.train_accuracy, found.test_accuracy))

    for step in folder.saved_steps():
        look(step)
    if not run.train:
        return
    for reached in train(recipe, run.seed, data, folder, _device(run.device)):
        if reached.checkpoint:
            look(reached.step)
        else:
            tell(RunEvent(run.name, reached.step, recipe.steps, None, None))
    tell(RunEvent(run.name, recipe.steps, recipe.steps, None, None, finished=True))


def _device(wanted: str) -> torch.device:
    """The device that accelerate chooses, or the CPU."""
    from accelerate import Accelerator

    device: torch.device = Accelerator(cpu=wanted == "cpu").device
    return device


_events: Any = None


def _begin(events: Any) -> None:
    """Set up a worker: one thread, and Ctrl-C left to the parent, which ends its workers itself."""
    global _events  # noqa: PLW0603 - a worker process has one parent to tell
    end_with_parent()
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def _follow(run: PlannedRun) -> FailedRun | None:
    try:
        follow(run, _events.put)
    except FloatingPointError as error:
        return FailedRun(run.name, str(error))
    return None


def _study(run: PlannedRun) -> CaseStudy | None:
    from llmtrap.calibrate.data import task_data
    from llmtrap.calibrate.studying import study

    history = read_history(run)
    if history is None:
        return None
    return study(history, RunFolder(run.folder), task_data(run.recipe, run.seed, run.data))


def _one_thread(work: Callable[[PlannedRun], Result], run: PlannedRun) -> Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return work(run)


class Workers:
    """Processes of one thread each, started once (loading PyTorch takes seconds) and ended with the block.

    Interrupted, they are ended at once; the folders stay whole, and the same calibration carries on.

    Args:
        count: at most so many.
        tell: called in this process with every event.

    Raises:
        MissingExtraError: torch or accelerate is not installed.
    """

    def __init__(self, count: int, tell: Listener):
        _need_extra()
        from pebble import ProcessPool

        context = multiprocessing.get_context("spawn")
        self._tell = tell
        self._events = context.Queue()
        self._pool = ProcessPool(max_workers=count, context=context, initializer=_begin, initargs=(self._events,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def follow(self, runs: Sequence[PlannedRun]) -> tuple[FailedRun, ...]:
        """Follow every run, as many at a time as there are workers; returns those that diverged.

        Raises:
            LlmtrapError: data cannot be read, or a folder cannot be written.
        """
        return tuple(failed for failed in self._spread(_follow, runs) if failed is not None)

    def study(self, runs: Sequence[PlannedRun]) -> tuple[CaseStudy, ...]:
        """Look closely at each of these followed runs."""
        return tuple(found for found in self._spread(_study, runs) if found is not None)

    def _spread(self, work: Callable[[PlannedRun], Result], runs: Sequence[PlannedRun]) -> list[Result]:
        """Do the work on each run, and return the results in the order of the runs."""
        futures: list[Future[Result]] = [self._pool.schedule(_one_thread, args=(work, run)) for run in runs]
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(self._events, self._tell)
            for future in done:
                future.result()
        _drain(self._events, self._tell)
        return [future.result() for future in futures]


def worker_count(runs: Sequence[PlannedRun], wanted: int | None) -> int:
    """As many workers as are wanted, or one a core, but no more than there are runs."""
    return max(1, min(wanted or os.cpu_count() or 1, len(runs)))


def _drain(events: Any, tell: Listener) -> None:
    while True:
        try:
            tell(events.get_nowait())
        except queue.Empty:
            return


def _need_extra() -> None:
    try:
        import accelerate  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("calibrate", "calibrate") from error


def read_history(run: PlannedRun) -> History | None:
    """What is measured of a run so far, or None where nothing is."""
    from llmtrap.calibrate.networks import scored_names

    folder = RunFolder(run.folder)
    lines = folder.measures()
    if not lines:
        return None
    words = folder.recipe_words()
    return History(
        run.recipe,
        run.seed,
        str(words["source"]),
        scored_names(run.recipe),
        tuple(Measurement.model_validate(line) for line in lines if line["step"] <= run.recipe.steps),
    )
