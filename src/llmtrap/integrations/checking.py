"""One check: the traps of a copy of the weights, of what changed alone, and α of a sample that goes round."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmtrap.audit import AuditRun, AuditSettings, Failed, Measured, RunOptions, make_plan
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.checkpoint.memory.opening import open_memory
from llmtrap.checkpoint.sources.base import SourceIdentity
from llmtrap.errors import UsageError
from llmtrap.integrations.checks import Check, NewTrap
from llmtrap.integrations.options import TrapOptions
from llmtrap.printable import printable
from llmtrap.report.document import Matrix
from llmtrap.report.formatting import plural
from llmtrap.trajectory.document import Trajectory
from llmtrap.trajectory.follow import Follower, FollowOptions
from llmtrap.trajectory.formatting import cause_words

# With more to do, in seconds of one core, a worker process is started: it takes a second of a core, and shares with the
# training neither the interpreter's lock nor the limit on BLAS threads. It asks this process for what it reads.
ALONE_SECONDS = 1.0
_RUN = RunOptions(workers=1, isolated=True)


class Checks:
    """Checks one copy of a run's weights after another.

    Args:
        options: what to check.
        name: what to call the run.
        given_up: set when nobody waits for the check any more: it ends between two matrices.
    """

    def __init__(self, options: TrapOptions, name: str, given_up: threading.Event):
        self._options, self._given_up = options, given_up
        settings = AuditSettings(alpha=False, include=options.include, exclude=options.exclude, seed=options.seed)
        follow = FollowOptions(_RUN, digests=True, history=options.trajectory is not None, alone=ALONE_SECONDS)
        self._follower = Follower(name, settings, follow)
        self._alpha: dict[str, float] = {}
        self._next_alpha = 0

    @property
    def trajectory(self) -> Trajectory | None:
        """The run so far; None before the first check."""
        return self._follower.trajectory if self._follower.points else None

    def check(self, step: int, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Check:
        """Audit the weights of a step, where they lie; they must not change meanwhile.

        Args:
            step: the step.
            tensors: the weights by name.
            config: the model's configuration.

        Raises:
            LlmtrapError: they cannot be audited, or the check was given up.
        """
        opened = open_memory(tensors, name=self._follower.name, config=config)
        identity = SourceIdentity(self._follower.name, "memory", f"step-{step}")
        checkpoint = replace(opened, catalogue=replace(opened.catalogue, identity=identity))
        found = self._traps(step, checkpoint)
        if self._options.alpha:
            self._sample_alpha(checkpoint)
        return replace(found, alpha=dict(self._alpha))

    def _traps(self, step: int, checkpoint: Checkpoint) -> Check:
        failed: list[Failed] = []
        for event in self._follower.events(checkpoint, f"step-{step}"):
            if isinstance(event, Failed):
                failed.append(event)
            if self._given_up.is_set():
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
            traps="certify", include=self._options.include, exclude=self._options.exclude, seed=self._options.seed
        )
        tasks = make_plan(checkpoint, settings).tasks
        spent = 0.0
        sample: list[WeightMatrix] = []
        while tasks and len(sample) < len(tasks):
            task = tasks[self._next_alpha % len(tasks)]
            if sample and spent + task.cost > self._options.alpha_seconds:
                break
            sample.append(task.matrix)
            spent += task.cost
            self._next_alpha = (self._next_alpha + 1) % len(tasks)
        run = _RUN if spent >= ALONE_SECONDS else replace(_RUN, isolated=False)
        for event in AuditRun(replace(checkpoint, matrices=tuple(sample)), settings, run).events():
            if self._given_up.is_set():
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
