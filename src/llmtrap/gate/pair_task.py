"""One pair of matrices in a worker: both sides are read once, and measured with what changed between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np

from llmtrap.audit.measure import measure_matrix
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import Stages
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.checkpoint.adapted import AdaptedTensor
from llmtrap.checkpoint.adapters import singular_values
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity, lend
from llmtrap.errors import AccessError, LlmtrapError
from llmtrap.gate.document import Update
from llmtrap.gate.update import is_transposed, measure_update, update_of
from llmtrap.report import document
from llmtrap.report.trap_changes import ValuesAt
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import Backend

KEPT_BYTES = 256 << 20
"""Stored bytes of one matrix that a worker keeps, so that it reads them once; of a larger one what changed between the
two sides is read once more."""


@dataclass(frozen=True)
class PairTask(Task):
    """A matrix of the target and that of the base, if there is one; what the journal knows of them is not measured.

    `on_own_base`: the target's matrix is an adapter's update on this very matrix, so ΔW is the update itself.
    """

    base: WeightMatrix | None = None
    now_known: document.Matrix | None = None
    base_known: document.Matrix | None = None
    on_own_base: bool = False


@dataclass(frozen=True)
class Compared:
    """What a pair gave beside the target's matrix. `base_at`, `now_at`: values of one side at the other's traps."""

    base: document.Matrix | None = None
    base_error: str | None = None
    update: Update | None = None
    base_at: ValuesAt = field(default_factory=dict)
    now_at: ValuesAt = field(default_factory=dict)


@dataclass(frozen=True)
class PairSource:
    """The target's source, which the executors know, and the base's."""

    now: Source
    base: Source

    @property
    def identity(self) -> SourceIdentity:
        """The target's."""
        return self.now.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The target's."""
        return self.now.files()

    def read(self, span: ByteRange) -> Bytes:
        """Of the target."""
        return self.now.read(span)

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Of the target."""
        return self.now.open(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Of the target."""
        self.now.read_into(span, out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Of the target."""
        self.now.prefetch(spans)

    def close(self) -> None:
        """Close both."""
        self.now.close()
        self.base.close()


class KeptSource:
    """A source whose bytes of one matrix are read once, and then given out as often as they are asked for."""

    def __init__(self, source: Source, matrix: WeightMatrix):
        self._source = source
        self._kept: list[tuple[ByteRange, Bytes]] = []
        runs = _runs(matrix.spans())
        if sum(run[-1].stop - run[0].start for run in runs) <= KEPT_BYTES:
            self._kept = [(ByteRange(run[0].file, run[0].start, run[-1].stop), self._fetched(run)) for run in runs]

    @property
    def identity(self) -> SourceIdentity:
        """The source's."""
        return self._source.identity

    def files(self) -> tuple[FileEntry, ...]:
        """The source's."""
        return self._source.files()

    def read(self, span: ByteRange) -> Bytes:
        """A copy of these bytes."""
        kept = self._find(span)
        return self._source.read(span) if kept is None else kept.copy()

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes."""
        kept = self._find(span)
        return self._source.open(span) if kept is None else lend(kept)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into the caller's array."""
        kept = self._find(span)
        if kept is None:
            self._source.read_into(span, out)
        else:
            out[:] = kept

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Pass on what is not here already."""
        self._source.prefetch([span for span in spans if self._find(span) is None])

    def close(self) -> None:
        """Let go of what was kept; the source stays open."""
        self._kept.clear()

    def _fetched(self, run: Sequence[ByteRange]) -> Bytes:
        data = np.empty(run[-1].stop - run[0].start, dtype=np.uint8)
        for span in run:
            self._source.read_into(span, data[span.start - run[0].start : span.stop - run[0].start])
        return data

    def _find(self, span: ByteRange) -> Bytes | None:
        for kept, data in self._kept:
            if kept.file == span.file and kept.start <= span.start and span.stop <= kept.stop:
                return data[span.start - kept.start : span.stop - kept.start]
        return None


def _runs(spans: Iterable[ByteRange]) -> list[list[ByteRange]]:
    """Ranges grouped so that within a group each begins where the one before it ends; none twice."""
    runs: list[list[ByteRange]] = []
    for span in sorted(set(spans), key=lambda span: (span.file, span.start, span.stop)):
        last = runs[-1][-1] if runs else None
        if last is not None and last.file == span.file and span.start <= last.stop:
            start = max(span.start, last.stop)
            if start < span.stop:
                runs[-1].append(ByteRange(span.file, start, span.stop))
        else:
            runs.append([span])
    return runs


@contextmanager
def _kept(source: Source, matrix: WeightMatrix) -> Iterator[KeptSource]:
    kept = KeptSource(source, matrix)
    try:
        yield kept
    finally:
        kept.close()


def measure_pair(
    task: Task, source: Source, settings: AnalysisSettings, backend: Backend, stages: Stages
) -> tuple[document.Matrix, object]:
    """Measure a pair: the target's matrix, and `Compared`.

    Raises:
        LlmtrapError: the target's matrix cannot be read or measured; what is wrong with the base's is in `Compared`.
    """
    assert isinstance(task, PairTask)  # noqa: S101 - the gate's tasks are
    assert isinstance(source, PairSource)  # noqa: S101
    if task.base is not None:
        source.base.prefetch(task.base.spans())
    with _kept(source.now, task.matrix) as mine:
        now = task.now_known
        if now is None:
            now = measure_matrix(task.matrix, mine, settings, backend, stages)
        if task.base is None:
            return now, Compared()
        try:
            with _kept(source.base, task.base) as theirs:
                was = task.base_known
                if was is None:
                    was = measure_matrix(task.base, theirs, settings, backend)
                return now, _compare(task, now, was, mine, theirs, backend)
        except AccessError:
            raise
        except LlmtrapError as error:
            return now, Compared(base_error=error.message)


def _compare(
    task: PairTask, now: document.Matrix, was: document.Matrix, mine: Source, theirs: Source, backend: Backend
) -> Compared:
    matrix, base = task.matrix, task.base
    assert base is not None  # noqa: S101 - the caller looked
    if now.non_finite is not None or was.non_finite is not None:
        return Compared(base=was)
    update = measure_update(matrix, base, mine, theirs, backend)
    if update is not None and task.on_own_base:
        update = _exactly(update, task, mine, was)
    turned = is_transposed(matrix, base, mine, theirs)
    return Compared(
        base=was,
        update=update,
        base_at=_values_at(_places(now), base, theirs, turned=turned),
        now_at=_values_at(_places(was), matrix, mine, turned=turned),
    )


def _exactly(update: Update, task: PairTask, mine: Source, was: document.Matrix) -> Update:
    """The norms of a LoRA update from its factors, whose product is not rounded to the matrix's numbers."""
    if not isinstance(task.matrix.stored, AdaptedTensor) or was.spectrum is None:
        return update
    exact = update_of(singular_values(*task.matrix.stored.factors(mine)), update.id, was.spectrum.frobenius_norm)
    norms = ("spectral_norm", "frobenius_norm", "stable_rank", "relative", "rank")
    return update.model_copy(update={name: getattr(exact, name) for name in norms})


def _places(matrix: document.Matrix) -> list[tuple[int, int]]:
    """Where the entries lie that are named as causes of traps."""
    causes = [trap.cause for trap in matrix.traps.found] if matrix.traps is not None else []
    return [(cause.row, cause.column) for cause in causes if cause.row is not None and cause.column is not None]


def _values_at(places: list[tuple[int, int]], matrix: WeightMatrix, source: Source, *, turned: bool) -> ValuesAt:
    """The values of the other side at these places, which it may hold transposed."""
    there = {place: place[::-1] if turned else place for place in places}
    wanted = {at: place for place, at in there.items() if at[0] < matrix.shape[0] and at[1] < matrix.shape[1]}
    found: dict[tuple[int, int], float] = {}
    top = 0
    if not wanted:
        return found
    for block in matrix.blocks(source):
        for (row, column), place in wanted.items():
            if top <= row < top + block.shape[0]:
                found[place] = float(block[row - top, column])
        top += block.shape[0]
    return found
