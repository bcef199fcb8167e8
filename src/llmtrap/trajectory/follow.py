"""Follow a run: audit one checkpoint after another, and measure of each only what changed since the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmtrap.audit import AuditRun, AuditSettings, Event, Finished, Measured, RunOptions, journal_for
from llmtrap.audit.report import TOOL, settings_of
from llmtrap.audit.settings import ALONE_SECONDS
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.checkpoint.naming import table_of
from llmtrap.errors import LlmtrapError, UsageError
from llmtrap.gate.unchanged import content_digest, same_files, unchanged_matrices
from llmtrap.report import document
from llmtrap.report.trap_changes import compare_traps
from llmtrap.trajectory.document import MeasuredMatrix, Point, Trajectory, matrices_at, report_at
from llmtrap.trajectory.histories import trap_histories
from llmtrap.trajectory.steps import step_of


@dataclass(frozen=True)
class FollowOptions:
    """How a run is followed; nothing here changes a number.

    Attributes:
        run: how each audit runs.
        journal: the folder where measurements are kept, so that a run that was stopped carries on; None keeps none.
        digests: compare by digests of the stored bytes that the trajectory keeps, so that the checkpoint before may be
            gone. Without them the two are compared byte by byte, and files that a hub gives one SHA-256 not at all.
        history: keep every measurement for the trajectory; without it memory is bounded by one checkpoint's numbers.
        alone: seconds of work below which an audit runs in this process, since worker processes would cost more.
    """

    run: RunOptions
    journal: Path | None = None
    digests: bool = False
    history: bool = True
    alone: float = ALONE_SECONDS


class Follower:
    """Audits the checkpoints of one run in order.

        follower = Follower("my run", AuditSettings(), FollowOptions(RunOptions(workers=2)))
        for path in ("out/checkpoint-500", "out/checkpoint-1000"):
            for event in follower.events(open_checkpoint(path), path):
                ...
        follower.trajectory

    Args:
        name: what to call the run.
        settings: what to measure.
        options: how.
        past: the trajectory to carry on.

    Raises:
        UsageError: the past was measured with other settings.
    """

    def __init__(
        self, name: str, settings: AuditSettings, options: FollowOptions, past: Trajectory | None = None
    ) -> None:
        self.name, self._settings, self._options = name, settings, options
        self._documented: document.Settings | None = None if past is None else past.settings
        self._points: list[Point] = [] if past is None else list(past.points)
        self._measured: list[MeasuredMatrix] = [] if past is None else list(past.matrices)
        self._now: dict[str, MeasuredMatrix] = {}
        # What a matrix is held against for new traps. A trap that grows slowly never stands clear of the point before.
        self._reference: dict[str, document.Matrix] = {}
        self._last: Checkpoint | None = None
        self._reports: tuple[document.Report | None, document.Report | None] = (None, None)
        if past is not None and past.points:
            there = matrices_at(past, len(past.points) - 1)
            self._reports = (report_at(past, len(past.points) - 1), None)
            self._now = {
                it.matrix.id: it
                for it in past.matrices
                if there.get(it.matrix.id) is it.matrix and table_of(it.matrix.role) is None  # older ones had tables
            }
            self._check_settings(past.settings)
            for item in past.matrices:
                name, new = item.matrix.id, past.points[item.point].new_traps or ()
                if name not in self._reference or name in new:
                    self._reference[name] = item.matrix

    @property
    def points(self) -> tuple[Point, ...]:
        """The checkpoints so far."""
        return tuple(self._points)

    @property
    def matrices(self) -> dict[str, document.Matrix]:
        """The matrices of the last checkpoint, by id."""
        return {name: it.matrix for name, it in self._now.items()}

    @property
    def reports(self) -> tuple[document.Report | None, document.Report | None]:
        """The reports of the last checkpoint and of the one before it; None where there is none."""
        return self._reports

    @property
    def trajectory(self) -> Trajectory:
        """The run so far.

        Raises:
            UsageError: no checkpoint was audited.
        """
        if self._documented is None:
            raise UsageError("no checkpoint was audited", remedy="Name at least one")
        return Trajectory(
            tool=TOOL, name=self.name, settings=self._documented, points=tuple(self._points),
            matrices=tuple(self._measured), traps=trap_histories(self._points, self._measured),
        )  # fmt: skip

    def events(self, checkpoint: Checkpoint, name: str, still: Callable[[], bool] = lambda: True) -> Generator[Event]:
        """Audit the next checkpoint. At its `Finished` it is a point of the trajectory.

        The checkpoint's source is closed when it is no longer compared with.

        Args:
            checkpoint: the checkpoint.
            name: its path or revision.
            still: asked at the end whether it is still what it was; if not there is no `Finished`, and no point.
        """
        digests = self._digests(checkpoint) if self._options.digests else {}
        known = self._unchanged(checkpoint, digests)
        journal = None if self._options.journal is None else journal_for(checkpoint, self._options.journal)
        run = AuditRun(checkpoint, self._settings, self._options.run, journal, known)
        if sum(task.cost for task in run.plan.tasks if task.matrix.id not in known) < self._options.alone:
            run.options = replace(self._options.run, workers=1, isolated=False)
        size = 0
        for event in run.events():
            if isinstance(event, Measured):
                size += event.task.bytes
            if isinstance(event, Finished) and event.report is not None:
                if not still():
                    checkpoint.source.close()
                    return
                self._add(event.report, name, known, digests, size)
                self._keep(checkpoint)
            yield event

    def close(self) -> None:
        """Close the last checkpoint."""
        self._keep(None)

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        """Keep a checkpoint to compare the next with, and close the one before."""
        if self._last is not None:
            self._last.source.close()
        if checkpoint is not None and self._options.digests:
            checkpoint.source.close()
            checkpoint = None
        self._last = checkpoint

    def _digests(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Digests by id. What cannot be read has none: measuring it will say what is wrong with it."""
        found = {}
        for matrix in checkpoint.matrices:
            try:
                found[matrix.id] = content_digest(matrix, checkpoint.source)
            except LlmtrapError:
                continue
        return found

    def _unchanged(self, checkpoint: Checkpoint, digests: Mapping[str, str]) -> dict[str, document.Matrix]:
        """What was measured of the matrices that are the same as at the point before."""
        held = {m.id: self._now[m.id] for m in checkpoint.matrices if m.id in self._now}
        alike = [m for m in checkpoint.matrices if m.id in held and _is_called_so(held[m.id].matrix, m)]
        if self._options.digests:
            same = {m.id for m in alike if m.id in digests and digests[m.id] == held[m.id].digest}
        elif self._last is not None:
            before = {matrix.id: matrix for matrix in self._last.matrices}
            pairs = [(m, before[m.id]) for m in alike if m.id in before]
            files = same_files(checkpoint.catalogue.files, self._last.catalogue.files)
            threads = min(2, self._options.run.workers)
            same = set(unchanged_matrices(pairs, checkpoint.source, self._last.source, threads, same=files))
        else:
            same = set()
        return {name: held[name].matrix for name in held if name in same}

    def _add(
        self,
        report: document.Report,
        name: str,
        known: Mapping[str, document.Matrix],
        digests: Mapping[str, str],
        size: int,
    ) -> None:
        self._documented = self._documented or report.settings
        place = len(self._points)
        is_first = not self._reference
        fresh = [
            MeasuredMatrix(point=place, digest=digests.get(m.id), matrix=without_histograms(m))
            for m in report.matrices
            if m.id not in known
        ]
        planned = {m.id for m in report.matrices} | {failed.id for failed in report.coverage.failed}
        step = step_of(name)
        new = [it.matrix.id for it in fresh if self._has_new_trap(it.matrix, first=is_first)]
        self._points.append(
            Point(
                name=name, step=None if step is None else step.step, label=name if step is None else step.label,
                target=report.target, coverage=report.coverage, summary=report.summary, findings=report.findings,
                tensors=report.tensors,
                measured=len(fresh), unchanged=len(report.matrices) - len(fresh), measured_bytes=size,
                missing=tuple(it for it in self._now if it not in planned), new_traps=None if is_first else tuple(new),
            )
        )  # fmt: skip
        if self._options.history:
            self._measured += fresh
        else:
            del self._points[:-1]
        now = {**self._now, **{it.matrix.id: it for it in fresh}}
        self._now = {m.id: now[m.id] for m in report.matrices}
        self._reports = (report, self._reports[0])

    def _has_new_trap(self, matrix: document.Matrix, *, first: bool) -> bool:
        """Whether a trap stands clear that the matrix did not have; one that was not there before had none."""
        before = self._reference.setdefault(matrix.id, matrix)
        if before is matrix:
            return not first and matrix.traps is not None and matrix.traps.centred > 0 and matrix.traps.reliable
        changes = compare_traps(matrix, before)
        if changes is None or changes.state != "new":
            return False
        self._reference[matrix.id] = matrix
        return True

    def _check_settings(self, past: document.Settings) -> None:
        mine = settings_of(self._settings, past.backend)
        if mine != past:
            names = [key for key, value in mine if value != getattr(past, key)]
            raise UsageError(
                f"the trajectory so far was measured with another {', '.join(names)}",
                remedy="Give the same settings, or write to another file",
            )


def without_histograms(matrix: document.Matrix) -> document.Matrix:
    """The same in less room: a trajectory shows numbers, not spectra."""
    spectrum, traps = matrix.spectrum, matrix.traps
    return matrix.model_copy(
        update={
            "spectrum": None if spectrum is None else spectrum.model_copy(update={"histogram": None}),
            "traps": None if traps is None else traps.model_copy(update={"shuffled": None}),
        }
    )


def _is_called_so(known: document.Matrix, matrix: WeightMatrix) -> bool:
    """Whether a report of this matrix would name it as the known one is named."""
    return (known.tensor, known.part, known.layer, known.role, known.expert, known.shape, known.aliases) == (
        matrix.tensor, matrix.part, matrix.layer, matrix.role, matrix.expert, matrix.shape, matrix.aliases,
    )  # fmt: skip
