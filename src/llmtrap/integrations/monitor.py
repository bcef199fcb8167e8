"""Check the weights of a run while it trains, in the background and on the CPU; the same for every trainer.

At a step the weights are copied, which is all that training waits for. A thread then audits the copy, in a worker
process where there is much to do: the certificate first, shuffles for what it leaves open, and only matrices that
changed. Nothing that goes wrong there ends the training.
"""

from __future__ import annotations

import logging
import math
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from llmtrap.audit import AuditRun, AuditSettings, Failed, Measured, RunOptions, make_plan
from llmtrap.checkpoint import Checkpoint, WeightMatrix, open_checkpoint
from llmtrap.checkpoint.sources.base import SourceIdentity
from llmtrap.errors import LlmtrapError, UsageError
from llmtrap.integrations.copying import WeightCopy, write_copy
from llmtrap.printable import printable
from llmtrap.report.document import Matrix
from llmtrap.report.wording import number, plural
from llmtrap.trajectory.follow import Follower, FollowOptions
from llmtrap.trajectory.words import cause_words
from llmtrap.trajectory.write import write_trajectory

if TYPE_CHECKING:
    import torch

OnTrap = Literal["warn", "stop", "keep"]
Late = Literal["skip", "wait"]

PREFIX = "llmtrap/"
# With more to do, in seconds of one core, a worker process is started: it takes a second of a core, and shares with the
# training neither the interpreter's lock nor the limit on BLAS threads.
ALONE_SECONDS = 1.0
_RUN = RunOptions(workers=1, isolated=True)
logger = logging.getLogger("llmtrap")


@dataclass(frozen=True)
class TrapOptions:
    """What a callback checks, when, and what it does about a new trap.

    Attributes:
        every: steps between two checks; "save" checks where the trainer saves a checkpoint.
        on_trap: `warn` says it, `stop` ends the training at the next step, `keep` keeps the last checkpoint before the
            trap from being deleted; several together as a tuple. Every one of them warns.
        alpha: measure α of a sample that rotates through the matrices.
        alpha_seconds: work for α at each check, in seconds of one core; at least one matrix is measured.
        late: what happens where a check is due and the one before still runs: `skip` it, or let training `wait`.
        finish_seconds: how long the end of training waits for the last check.
        include: only these matrices, as `llmtrap audit --include`.
        exclude: not these.
        seed: of the shuffles.
        scratch: where a copy of the weights is written while it is checked; None is the system's place for such files.
        trajectory: where to write the run as a trajectory when training ends; None writes none, and keeps no history.
    """

    every: int | Literal["save"] = 50
    on_trap: OnTrap | Collection[OnTrap] = "warn"
    alpha: bool = False
    alpha_seconds: float = 20.0
    late: Late = "skip"
    finish_seconds: float = 120.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    scratch: str | Path | None = None
    trajectory: str | Path | None = None

    def __post_init__(self) -> None:
        known = get_args(OnTrap)
        if not self.policies <= set(known) or not self.policies:
            wrong = ", ".join(sorted(map(repr, self.policies - set(known)))) or "nothing"
            raise UsageError(f"on_trap is {wrong}", remedy=f"Give one or more of {', '.join(known)}")
        if self.every != "save" and not (isinstance(self.every, int) and self.every >= 1):
            raise UsageError(f"every is {self.every!r}", remedy="Give a number of steps, or 'save'")
        if self.late not in get_args(Late):
            raise UsageError(f"late is {self.late!r}", remedy="Give 'skip' or 'wait'")

    @property
    def policies(self) -> frozenset[str]:
        """What `on_trap` asks for."""
        return frozenset((self.on_trap,) if isinstance(self.on_trap, str) else self.on_trap)

    def is_due(self, step: int) -> bool:
        """Whether a check is due after this step."""
        return self.every != "save" and step % self.every == 0


@dataclass(frozen=True)
class NewTrap:
    """A matrix in which a trap stands clear that it did not have when the training began."""

    matrix: str
    cause: str
    strength: float

    @property
    def words(self) -> str:
        """`layers.3.mlp.down (entry [7, 11], 2.1 × the edge)`."""
        return f"{printable(self.matrix, 120)} ({self.cause}, {number(self.strength)} × the edge)"


@dataclass(frozen=True)
class Check:
    """What one check found. `problem` says what could not be measured, `error` why nothing was."""

    step: int
    traps: int = 0
    matrices_with_traps: int = 0
    strongest: float | None = None
    new: tuple[NewTrap, ...] = ()
    matrices: int = 0
    measured: int = 0
    undecided: int = 0
    non_finite: int = 0
    failed: int = 0
    problem: str | None = None
    alpha: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    def metrics(self) -> dict[str, float]:
        """What is logged, under names that do not change."""
        if self.error is not None:
            return {}
        values: dict[str, float | None] = {
            "traps": self.traps, "matrices_with_traps": self.matrices_with_traps, "new_traps": len(self.new),
            "strongest": self.strongest, "measured": self.measured, "undecided": self.undecided,
            "failed": self.failed, "non_finite": self.non_finite, "checked_step": self.step,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip
        if self.alpha:
            values["alpha_median"] = statistics.median(self.alpha.values())
            values["alpha_min"] = min(self.alpha.values())
            values["alpha_matrices"] = len(self.alpha)
        return {PREFIX + name: float(value) for name, value in values.items() if value is not None}


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
        settings = AuditSettings(alpha=False, include=options.include, exclude=options.exclude, seed=options.seed)
        follow = FollowOptions(_RUN, digests=True, history=options.trajectory is not None, alone=ALONE_SECONDS)
        self._follower = Follower(name, settings, follow)
        self._copy = WeightCopy()
        self._thread: threading.Thread | None = None
        self._found: queue.SimpleQueue[Check] = queue.SimpleQueue()
        self._alpha: dict[str, float] = {}
        self._next_alpha = 0
        self._closing = threading.Event()
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
        config = _config_of(module)
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
        if self.options.trajectory is not None and self._follower.points:
            try:
                write_trajectory(self._follower.trajectory, Path(self.options.trajectory))
            except LlmtrapError as error:
                logger.warning("the trajectory is not written: %s", error.message)
        return self.news()

    def _work(self, step: int, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory(prefix="llmtrap-", dir=self.options.scratch) as folder:
                write_copy(tensors, config, Path(folder))
                found = self._audited(step, folder)
            self._found.put(replace(found, alpha=dict(self._alpha), seconds=time.perf_counter() - start))
        except Exception as error:
            self._found.put(Check(step, error=_words(error)))

    def _audited(self, step: int, folder: str) -> Check:
        opened = open_checkpoint(folder)
        # The folder is gone when anybody reads of it.
        identity = SourceIdentity(self._follower.name, "memory", f"step-{step}")
        checkpoint = replace(opened, catalogue=replace(opened.catalogue, identity=identity))
        found = self._traps(step, checkpoint)
        if self.options.alpha:
            self._sample_alpha(checkpoint)
        return found

    def _traps(self, step: int, checkpoint: Checkpoint) -> Check:
        failed: list[Failed] = []
        for event in self._follower.events(checkpoint, f"step-{step}"):
            if isinstance(event, Failed):
                failed.append(event)
            if self._closing.is_set():
                raise UsageError("training ended")
        point, matrices = self._follower.points[-1], self._follower.matrices
        new = tuple(_new_trap(matrices[name]) for name in point.new_traps or ())
        strengths = [trap.strength for matrix in matrices.values() for trap in _centred(matrix)]
        problem = None
        if failed:
            first = printable(failed[0].task.matrix.id, 120)
            problem = f"{plural(len(failed), 'matrix')} could not be measured, the first {first}: {failed[0].error}"
        return Check(
            step, traps=point.summary.traps, matrices_with_traps=point.summary.with_traps,
            strongest=max(strengths, default=None), new=new, matrices=len(matrices), measured=point.measured,
            undecided=point.summary.undecided, non_finite=point.summary.non_finite, failed=len(failed), problem=problem,
        )  # fmt: skip

    def _sample_alpha(self, checkpoint: Checkpoint) -> None:
        """Measure α of the next matrices in turn, as many as the time allows."""
        settings = AuditSettings(
            traps="certify", include=self.options.include, exclude=self.options.exclude, seed=self.options.seed
        )
        tasks = make_plan(checkpoint, settings).tasks
        spent = 0.0
        sample: list[WeightMatrix] = []
        while tasks and len(sample) < len(tasks):
            task = tasks[self._next_alpha % len(tasks)]
            if sample and spent + task.cost > self.options.alpha_seconds:
                break
            sample.append(task.matrix)
            spent += task.cost
            self._next_alpha = (self._next_alpha + 1) % len(tasks)
        run = _RUN if spent >= ALONE_SECONDS else replace(_RUN, isolated=False)
        for event in AuditRun(replace(checkpoint, matrices=tuple(sample)), settings, run).events():
            if self._closing.is_set():
                return
            if isinstance(event, Measured) and event.matrix.alpha is not None and event.matrix.alpha.reliable:
                value = event.matrix.alpha.value
                if value is not None and math.isfinite(value):
                    self._alpha[event.matrix.id] = value


def _centred(matrix: Matrix) -> list[Any]:
    found = matrix.traps.found if matrix.traps is not None else ()
    return [trap for trap in found if trap.cause.kind != "mean_shift"]


def _new_trap(matrix: Matrix) -> NewTrap:
    strongest = max(_centred(matrix) or (matrix.traps.found if matrix.traps else ()), key=lambda trap: trap.strength)
    return NewTrap(matrix.id, cause_words(strongest.cause), strongest.strength)


def _config_of(module: torch.nn.Module) -> dict[str, Any]:
    """The configuration of a model, or of the one model within a trainer's module; empty where there is none."""
    configured = [it for it in (module, *module.children()) if callable(_to_dict(it))]
    stated = _to_dict(configured[0])() if configured else {}
    return dict(stated) if isinstance(stated, Mapping) else {}


def _to_dict(module: torch.nn.Module) -> Any:
    return getattr(getattr(module, "config", None), "to_dict", None)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, LlmtrapError) else f"{type(error).__name__}: {error}"
