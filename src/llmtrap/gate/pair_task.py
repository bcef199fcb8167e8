"""One pair of matrices in a worker: both sides are read once, and measured with what changed between them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from llmtrap.audit.measure import measure_matrix
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import Stages
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.checkpoint.adapted import AdaptedTensor
from llmtrap.checkpoint.adapters import singular_values
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity
from llmtrap.errors import AccessError, LlmtrapError
from llmtrap.gate.document import Update
from llmtrap.gate.kept import is_kept, kept
from llmtrap.gate.side_by_side import Passed, read_side_by_side
from llmtrap.gate.update import UpdatePass, is_transposed, measure_update, update_of
from llmtrap.report import document
from llmtrap.report.trap_changes import ValuesAt
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import Backend
from llmtrap.spectra.matrix_data import is_read_once
from llmtrap.spectra.single_pass import FirstPass


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
    with kept(source.now, task.matrix) as mine:
        passed = _side_by_side(task, mine, source.base, settings, backend, stages)
        now = task.now_known
        if now is None:
            now = measure_matrix(task.matrix, mine, settings, backend, stages, passed.now)
        if task.base is None:
            return now, Compared()
        try:
            if passed.error is not None:
                raise passed.error
            with kept(source.base, task.base) as theirs:
                was = task.base_known
                if was is None:
                    was = measure_matrix(task.base, theirs, settings, backend, first=passed.base)
                return now, _compare(task, now, was, mine, theirs, backend, passed.update)
        except AccessError:
            raise
        except LlmtrapError as error:
            return now, Compared(base_error=error.message)


def _side_by_side(
    task: PairTask, mine: Source, theirs: Source, settings: AnalysisSettings, backend: Backend, stages: Stages
) -> Passed:
    """Read two matrices that are too large to keep side by side, once; nothing where either is small, or known."""
    matrix, base = task.matrix, task.base
    if base is None or matrix.shape != base.shape or (task.now_known is not None and task.base_known is not None):
        return Passed()
    if is_kept(matrix) or is_kept(base) or not is_read_once(matrix.shape, settings, backend):
        return Passed()
    now, was = (
        FirstPass(matrix.shape, backend, gram=settings.alpha) if known is None else None
        for known in (task.now_known, task.base_known)
    )
    passed = Passed(now, was, UpdatePass(matrix.id, matrix.shape, backend))
    with stages.clock():
        return read_side_by_side(matrix, base, mine, theirs, passed)


def _compare(
    task: PairTask,
    now: document.Matrix,
    was: document.Matrix,
    mine: Source,
    theirs: Source,
    backend: Backend,
    passed: UpdatePass | None,
) -> Compared:
    matrix, base = task.matrix, task.base
    assert base is not None  # noqa: S101 - the caller looked
    if now.non_finite is not None or was.non_finite is not None:
        return Compared(base=was)
    update = measure_update(matrix, base, mine, theirs, backend) if passed is None else passed.finish()
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
    rows = matrix.rows_at(source, [row for row, _ in wanted]) if wanted else {}
    return {place: float(rows[row][column]) for (row, column), place in wanted.items()}
