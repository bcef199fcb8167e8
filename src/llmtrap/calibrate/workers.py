"""Follow many runs at a time, one process each: train, measure every checkpoint, carry on where a kill left off."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from llmtrap.calibrate.document import CaseStudy, FailedRun
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.rundir import AGAIN, RunFolder, check_tensors
from llmtrap.calibrate.settings import PlannedRun, RunEvent
from llmtrap.errors import CheckpointError, LlmtrapError, MissingExtraError
from llmtrap.processes.lane import Lane, WorkerDeath, stop_lanes
from llmtrap.processes.serving import tell
from llmtrap.processes.worker import need_workers, wait_for_answers

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
    from llmtrap.calibrate.measure_checkpoint import measure
    from llmtrap.calibrate.networks import initial_weights
    from llmtrap.calibrate.training import train

    recipe = run.recipe
    if not run.train and not run.folder.exists():
        return
    data = task_data(recipe, run.seed, run.data)
    folder = RunFolder(run.folder)
    folder.claim(recipe, run.seed, data)
    found = {measured.step: measured for measured in _measured(run)}
    like = initial_weights(recipe, run.seed)

    def look(step: int) -> None:
        if step not in found:
            weights = folder.load_weights(step)
            check_tensors(weights, like, folder.weights_file(step))
            found[step] = measure(recipe, weights, data, run.seed, step, folder.seconds_at(step))
            folder.append_measure(found[step])
            tell(RunEvent(run.name, step, recipe.steps, found[step].train_accuracy, found[step].test_accuracy))

    def stopped() -> bool:
        points = tuple(found[step] for step in sorted(found))
        return bool(points) and _followed(run, data.source, points).stopped

    for step in folder.saved_steps():
        look(step)
    if not run.train or stopped():
        return
    for reached in train(recipe, run.seed, data, folder, _device(run.device)):
        if reached.checkpoint:
            look(reached.step)
            if stopped():
                break
        else:
            tell(RunEvent(run.name, reached.step, recipe.steps, None, None))
    tell(RunEvent(run.name, max(found), max(found), None, None, finished=True))


def _device(wanted: str) -> torch.device:
    """The device that accelerate chooses, or the CPU."""
    from accelerate import Accelerator

    device: torch.device = Accelerator(cpu=wanted == "cpu").device
    return device


def read_run(run: PlannedRun) -> Run | None:
    """What is measured of a run so far, or None where nothing is.

    Raises:
        CheckpointError: the run's folder is damaged.
    """
    points = tuple(it for it in _measured(run) if it.step <= run.recipe.steps)
    return _followed(run, RunFolder(run.folder).source, points) if points else None


def _followed(run: PlannedRun, source: str, points: tuple[Measurement, ...]) -> Run:
    from llmtrap.calibrate.networks import scored_names

    scored = scored_names(run.recipe)
    return Run(recipe=run.recipe, seed=run.seed, source=source, scored=scored, checkpoints=points)


def _measured(run: PlannedRun) -> tuple[Measurement, ...]:
    """The measured checkpoints of a run.

    Raises:
        CheckpointError: they are damaged, or of another network.
    """
    from llmtrap.calibrate.networks import matrix_names

    names = matrix_names(run.recipe)
    found = RunFolder(run.folder).measures()
    if other := next((it for it in found if tuple(layer.name for layer in it.layers) != names), None):
        problem = f"step {other.step} is measured of another network"
        raise CheckpointError(problem, file=str(run.folder / "measures.jsonl"), remedy=AGAIN)
    return found


# -- in a worker -----------------------------------------------------------------------------------------------------


def _begin() -> None:
    """As many runs as cores are followed at a time, so that each has one thread."""
    import torch

    torch.set_num_threads(1)


def _one_thread(work: Callable[[PlannedRun], Result], run: PlannedRun) -> Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return work(run)


def _follow(run: PlannedRun) -> FailedRun | None:
    try:
        follow(run, tell)
    except FloatingPointError as error:
        return FailedRun(name=run.name, error=str(error))
    return None


def _study(run: PlannedRun) -> CaseStudy | None:
    from llmtrap.calibrate.case_study import study
    from llmtrap.calibrate.data import task_data

    followed = read_run(run)
    if followed is None:
        return None
    return study(followed, RunFolder(run.folder), task_data(run.recipe, run.seed, run.data))


# -- the pool --------------------------------------------------------------------------------------------------------


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
        need_training()
        self._lanes: list[Lane[int]] = [Lane(_begin, hear=tell) for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        stop_lanes(self._lanes)

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
        results: dict[int, Result] = {}
        waiting = deque(range(len(runs)))
        while len(results) < len(runs):
            for lane in self._lanes:
                if lane.running is None and waiting:
                    lane.start(waiting[0], _one_thread, work, runs[waiting.popleft()])
            busy = {lane.worker: lane for lane in self._lanes if lane.running is not None}
            for worker in wait_for_answers(list(busy)):
                lane = busy[worker]
                found, place = lane.take(), lane.running
                if found is None or place is None:
                    continue
                if isinstance(found, WorkerDeath):
                    raise _lost(runs[place], found.exit_code)
                lane.running, results[place] = None, found.value
        return [results[place] for place in range(len(runs))]


def _lost(run: PlannedRun, code: int | None) -> LlmtrapError:
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    remedy = "The system may be out of memory: use fewer --workers. The same command carries on where each run stands"
    return LlmtrapError(f"the process that follows {run.name} {how}", remedy=remedy)


def worker_count(runs: Sequence[PlannedRun], wanted: int | None) -> int:
    """As many workers as are wanted, or one a core, but no more than there are runs."""
    return max(1, min(wanted or os.cpu_count() or 1, len(runs)))


def need_training() -> None:
    """Make sure that training can run, before anything is announced.

    Raises:
        UnsupportedError: this system has no worker processes.
        MissingExtraError: torch or accelerate is not.
    """
    need_workers()
    if find_spec("torch") is None or find_spec("accelerate") is None:
        raise MissingExtraError.of("calibrate", "calibrate")
