"""One run of an audit: a generator of results. Progress, journal and printing are its consumers."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmtrap.audit.digests import FileDigests
from llmtrap.audit.executors.base import WorkerStalled
from llmtrap.audit.executors.choose import choose_executor
from llmtrap.audit.executors.worker import WorkerSpec
from llmtrap.audit.journal import Journal, PlanRecord, Recorded, remembered
from llmtrap.audit.other_tensors import look_beside
from llmtrap.audit.plan import Plan, Task, make_plan
from llmtrap.audit.report import assemble, record_of, settings_of
from llmtrap.audit.settings import AuditSettings, RunOptions
from llmtrap.checkpoint import Checkpoint
from llmtrap.errors import UsageError
from llmtrap.report import document
from llmtrap.spectra.backends import select_backend
from llmtrap.systems.process import peak_rss_bytes


@dataclass(frozen=True)
class Started:
    """The plan is made; `remembered` of its matrices are in the journal already, `known` were given with the run."""

    plan: Plan
    todo: int
    remembered: int
    remaining_bytes: int
    remaining_core_seconds: float
    known: int = 0


@dataclass(frozen=True)
class Measured:
    """One matrix is measured and in the journal; `stages` says where the seconds went."""

    task: Task
    matrix: document.Matrix
    stages: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """One matrix could not be measured."""

    task: Task
    error: str


@dataclass(frozen=True)
class Finished:
    """The run is over. `report` is None for a part of an audit: its results are in the journal, to be merged."""

    report: document.Report | None
    seconds: float


@dataclass(frozen=True)
class Stalled:
    """The worker at this matrix has come to a stand: `seconds` without any use of the processor, and why."""

    task: Task
    worker: str
    seconds: float
    reason: str


Event = Started | Measured | Failed | Stalled | Finished


class AuditRun:
    """An audit of one open checkpoint.

        run = AuditRun(open_checkpoint("path/to/model"), AuditSettings(), RunOptions(workers=2))
        for event in run.events():
            ...

    Args:
        checkpoint: what to audit.
        settings: what to measure.
        options: how to run.
        journal: where progress is kept; None keeps none.
        known: matrices, by id, of which the caller knows that they would be measured as these: they are not read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: AuditSettings | None = None,
        options: RunOptions | None = None,
        journal: Journal | None = None,
        known: Mapping[str, document.Matrix] | None = None,
    ):
        self.checkpoint = checkpoint
        self.settings = settings or AuditSettings()
        self.options = options or RunOptions()
        self.journal = journal
        self.known = known or {}
        self.plan = make_plan(checkpoint, self.settings, self.options.part)

    def events(self) -> Generator[Event]:
        """Measure what the journal does not hold; yield results as they come, the report last.

        Closing the generator stops the workers; every result yielded so far is on disk.

        Raises:
            OutputError: the journal cannot be written.
            AccessError: the target cannot be reached any more.
            DeviceError: the device asked for is not there.
        """
        start = time.perf_counter()
        backend = select_backend(self.settings.backend, self.settings.device)
        tasks = self.plan.tasks
        mine = [tasks[k] for k in self.plan.order]
        settings = settings_of(self.settings, backend.name)
        record = record_of(self.checkpoint, settings, self.plan, full_paths=self.options.full_paths)
        results = {task.key: self.known[task.matrix.id] for task in mine if task.matrix.id in self.known}
        recorded = self._remembered([task for task in mine if task.key not in results], record)
        given = len(results)
        results |= {key: result.matrix for key, result in recorded.items()}
        todo = [task for task in mine if task.key not in results]
        yield Started(self.plan, len(todo), len(recorded), sum(t.bytes for t in todo), sum(t.cost for t in todo), given)
        errors: dict[str, str] = {}
        memory: dict[str, int] = {}
        with FileDigests(self.checkpoint, wanted=self.options.digest) as digests:
            for event in self._work(todo, memory):
                if isinstance(event, Measured):
                    results[event.task.key] = event.matrix
                    digests.begin(part.span.file for part in event.task.matrix.stored.parts)
                elif isinstance(event, Failed):
                    errors[event.task.key] = event.error
                yield event
            beside = look_beside(self.checkpoint, self.checkpoint.source, self.plan.skipped)
            beside = replace(beside, digests=digests.wait())
        if self.journal is not None and not self.options.part.whole:
            self.journal.add_beside(self.plan.key, beside, self.options.part)
        seconds = time.perf_counter() - start
        report = None
        if self.options.part.whole:
            report = assemble(
                record,
                results,
                beside,
                errors=errors,
                digests=beside.digests,
                name=self.options.name,
                seconds=seconds,
                remembered=remembered(recorded.values()),
            )
            # Read last: to judge a report loads SciPy's statistics.
            memory[f"{os.getpid()}"] = peak_rss_bytes()
            held = report.summary.model_copy(update={"peak_rss_bytes": sum(memory.values())})
            report = report.model_copy(update={"summary": held})
        yield Finished(report, seconds)

    def _work(self, todo: Sequence[Task], memory: dict[str, int]) -> Iterator[Measured | Failed | Stalled]:
        """Hand the tasks to the workers; every result goes to the journal before it counts."""
        if not todo:
            return
        by_key = {task.key: task for task in todo}
        spec = WorkerSpec(self.checkpoint.source, self.settings.analysis(), self.settings.backend, self.settings.device)
        outcomes = choose_executor(spec, self.options).run(todo)
        for outcome in outcomes:
            task = by_key[outcome.key]
            if isinstance(outcome, WorkerStalled):
                yield Stalled(task, outcome.worker, outcome.seconds, outcome.reason)
                continue
            memory[outcome.worker] = max(memory.get(outcome.worker, 0), outcome.peak_rss_bytes)
            if outcome.matrix is None:
                yield Failed(task, outcome.error or "unknown")
                continue
            if self.journal is not None:
                self.journal.add(task.key, outcome.matrix)
            yield Measured(task, outcome.matrix, outcome.stages)

    def _remembered(self, mine: Sequence[Task], record: PlanRecord) -> dict[str, Recorded]:
        if self.journal is None:
            return {}
        self.journal.add_plan(record)
        return self.journal.results({task.key for task in mine})


def journal_for(checkpoint: Checkpoint, folder: Path) -> Journal:
    """The journal of a checkpoint in this folder.

    Raises:
        UsageError: its weights are in memory.
    """
    identity = checkpoint.catalogue.identity
    if identity.kind == "memory":
        problem = "weights in memory have no journal: nothing would tell them from those of another step"
        raise UsageError(problem, remedy="Leave the journal out")
    is_path = identity.kind in ("folder", "file")
    name = str(Path(identity.name).resolve()) if is_path else identity.name
    return Journal.for_target(folder, name, identity.kind)
