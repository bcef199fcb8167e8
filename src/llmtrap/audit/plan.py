"""What will be measured and in which order, how much is read, and about how long it takes; nothing is read yet."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from llmtrap.audit.settings import AuditSettings, Part
from llmtrap.checkpoint import Checkpoint, Skipped, WeightMatrix
from llmtrap.checkpoint.collection import collection_paused
from llmtrap.checkpoint.encodings import StoredTensor
from llmtrap.checkpoint.selection import selects
from llmtrap.checkpoint.tables import bytes_of, is_table, left_out_tables
from llmtrap.errors import UsageError
from llmtrap.report.formatting import join, printable
from llmtrap.spectra.settings import HELD_ENTRIES
from llmtrap.version import __version__

# Work per second of one core with one BLAS thread, measured on a server core whose neighbour worked too
# (docs/scaling.md): only for the estimate that is shown before a run.
_GRAM_PER_SECOND = 8e10
_EIGEN_PER_SECOND = 4e10
_ENTRIES_PER_SECOND = 3e8
_COUNTED_PER_SECOND = 1.4e9
_EACH = 0.01
_SHUFFLE = 0.34  # of what the matrix itself takes
_KEY_BYTES = 20


@dataclass(frozen=True)
class Task:
    """One matrix to measure. `key` stands for its content, its settings and this version of llmtrap.

    `cost` is an estimate in seconds of one core.
    """

    matrix: WeightMatrix
    key: str
    cost: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """All tasks in the order of the report; `order` says in which to work. `key` stands for the plan as a whole."""

    tasks: tuple[Task, ...]
    order: tuple[int, ...]
    skipped: tuple[Skipped, ...]
    key: str

    @property
    def bytes(self) -> int:
        """Bytes that will be read once."""
        return sum(task.bytes for task in self.tasks)

    @property
    def core_seconds(self) -> float:
        """Estimated work, in seconds of one core."""
        return sum(task.cost for task in self.tasks)


@collection_paused()
def make_plan(checkpoint: Checkpoint, settings: AuditSettings, part: Part | None = None, *, keyed: bool = True) -> Plan:
    """Choose and order the matrices of a checkpoint.

    Work goes shard by shard, so that each is read once and together, and within a shard the largest matrices go
    first, so that no worker is left with one at the end. Matrices too large to hold, which are the embeddings, go
    before all others: one that must be shuffled takes as long as dozens of them.

    Args:
        checkpoint: what is audited.
        settings: which of its matrices, and how they are measured.
        part: the share of the work that is this process's.
        keyed: whether results will be kept under keys. A plan that is shown alone needs none, and no order of work.
    """
    share = part or Part()
    stamps = {file.name: f"{file.size}:{file.digest or ''}:{file.stamp}" for file in checkpoint.catalogue.files}
    common: dict[str, object] = {
        "version": __version__,
        "settings": [settings.alpha, settings.traps, settings.trap_rule, settings.shuffles, settings.seed],
        "backend": [settings.backend, settings.device],
    }
    if settings.paired:
        common["paired"] = True
    chosen, skipped = _choose(checkpoint.matrices, settings)
    maker = _TaskMaker(settings, stamps, common, keyed=keyed)
    tasks = tuple(maker.task(matrix) for matrix in chosen)
    left_out = (*checkpoint.skipped, *skipped)
    if not keyed:
        return Plan(tasks, tuple(range(len(tasks))), left_out, "")
    shards = {name: k for k, name in enumerate(stamps)}
    order = sorted(
        range(len(tasks)),
        key=lambda k: (not _is_huge(tasks[k].matrix), shards.get(_shard(tasks[k].matrix), 0), -tasks[k].cost, k),
    )
    mine = tuple(order[share.number - 1 :: share.of])
    # All that a report of the journal alone is made of: the tensors beside the matrices too.
    whole = [common, stamps, [[task.matrix.id, task.key] for task in tasks], [[s.tensor, s.reason] for s in left_out]]
    return Plan(tasks, mine, left_out, _digest(whole))


def unused_patterns(matrices: Sequence[WeightMatrix], settings: AuditSettings) -> tuple[str, ...]:
    """The patterns of --exclude that match nothing, which are worth a word to whoever gave them.

    Raises:
        UsageError: a pattern of --include matches nothing: what was to be measured would not be.
    """
    if not settings.include and not settings.exclude:
        return ()
    names = [_names(matrix) for matrix in matrices]

    def matches(glob: str) -> bool:
        return any(selects(glob, several, matrix.part) for several, matrix in zip(names, matrices, strict=True))

    for glob in settings.include:
        if not matches(glob):
            near = _nearest(glob, names)
            there = f"there is {join([printable(name, 80) for name in near])}" if near else "llmtrap inspect lists them"
            problem = f"--include {printable(glob, 80)} matches no matrix of this checkpoint"
            raise UsageError(problem, remedy=f"Patterns match ids, tensor names and files; {there}")
    return tuple(glob for glob in settings.exclude if not matches(glob))


def _nearest(glob: str, names: Sequence[tuple[str, ...]]) -> list[str]:
    """Ids of matrices one of whose names has a word much like one of the pattern's."""
    ids: dict[str, str] = {}
    for several in names:
        for name in several[:2]:
            for word in name.split("."):
                ids.setdefault(word, several[0])
    words = [word for word in re.split(r"[^\w]+", glob) if word and not word.isdecimal()]
    near = [found for word in words for found in get_close_matches(word, ids, n=2, cutoff=0.7)]
    return list(dict.fromkeys(ids[word] for word in near))[:3]


def _names(matrix: WeightMatrix) -> tuple[str, ...]:
    """What a pattern may match."""
    return (matrix.id, matrix.tensor, *(part.span.file for part in matrix.stored.parts))


def _choose(matrices: Iterable[WeightMatrix], settings: AuditSettings) -> tuple[list[WeightMatrix], list[Skipped]]:
    """What is asked for and no table, and what is not: one entry a matrix, or a tensor whose parts are all left out."""
    chosen: list[WeightMatrix] = []
    tables: list[WeightMatrix] = []
    left_out: dict[str, Skipped] = {}
    for matrix in matrices:
        reason = _excluded(matrix, settings)
        if reason is None:
            (tables if is_table(matrix) else chosen).append(matrix)
            continue
        name = matrix.id if len(matrix.stored.shape) > 2 else matrix.tensor
        known = left_out.get(name, Skipped(name, reason, "on_request"))
        parameters, size = known.parameters + matrix.size, known.bytes + bytes_of(matrix)
        left_out[name] = replace(known, parameters=parameters, bytes=size)
    return chosen, [*left_out.values(), *left_out_tables(tables)]


def _excluded(matrix: WeightMatrix, settings: AuditSettings) -> str | None:
    if not settings.exclude and not settings.include:
        return None
    names = _names(matrix)
    for glob in settings.exclude:
        if selects(glob, names, matrix.part):
            return f"excluded by --exclude {glob}"
    if settings.include and not any(selects(glob, names, matrix.part) for glob in settings.include):
        return "not included by --include"
    return None


class _TaskMaker:
    """Makes the tasks of one plan; what many matrices have in common is written and estimated once."""

    def __init__(self, settings: AuditSettings, stamps: Mapping[str, str], common: object, *, keyed: bool):
        """Keep what every key stands for: the settings, and the files' stamps by their names."""
        self._settings, self._stamps, self._keyed = settings, stamps, keyed
        self._common = hashlib.blake2b(_text(common), digest_size=_KEY_BYTES)
        self._costs: dict[tuple[int, int], float] = {}
        self._stored: dict[int, tuple[str, int]] = {}

    def task(self, matrix: WeightMatrix) -> Task:
        """The task of one matrix; its key changes with anything that could change what is reported of it."""
        stored, shape = matrix.stored, matrix.shape
        if shape not in self._costs:
            self._costs[shape] = core_seconds(shape, self._settings)
        if id(stored) not in self._stored:
            written = self._written(stored) if self._keyed else ""
            self._stored[id(stored)] = (written, stored.stored_bytes)
        parts, size = self._stored[id(stored)]
        if not self._keyed:
            return Task(matrix, "", self._costs[shape], matrix.share_of(size))
        # As JSON does, ascii() tells any two of these plain values apart, and it takes a fifth of the time.
        content = ascii((
            matrix.id, matrix.index, matrix.rows, matrix.columns, matrix.part, matrix.layer, matrix.role, matrix.expert,
            shape, matrix.encoding, matrix.aliases, parts,
        ))  # fmt: skip
        key = self._common.copy()
        key.update(content.encode())
        return Task(matrix, key.hexdigest(), self._costs[shape], matrix.share_of(size))

    def _written(self, stored: StoredTensor) -> str:
        """Where a tensor's parts lie, and the stamps of the files."""
        return ascii([
            (part.name, part.dtype, part.shape, part.span.file, part.span.start, self._stamps.get(part.span.file, ""))
            for part in stored.parts
        ])  # fmt: skip


def core_seconds(shape: tuple[int, int], settings: AuditSettings) -> float:
    """Estimated seconds of one core for a matrix of this shape, if it is certified; five shuffles add 1.7 times that.

    The model and where its rates come from: docs/scaling.md.
    """
    n, m = max(shape), min(shape)
    if not settings.alpha:
        return _EACH + n * m / _COUNTED_PER_SECOND
    shuffles = _SHUFFLE * settings.shuffles if settings.traps == "measure" else 0.0
    gram = float(n) * m * m / _GRAM_PER_SECOND
    eigen = 4 / 3 * float(m) ** 3 / _EIGEN_PER_SECOND
    return _EACH + n * m / _ENTRIES_PER_SECOND + (gram + eigen) * (1 + shuffles)


def _is_huge(matrix: WeightMatrix) -> bool:
    return matrix.shape[0] * matrix.shape[1] > HELD_ENTRIES


def _shard(matrix: WeightMatrix) -> str:
    return matrix.stored.parts[0].span.file


def _digest(content: object) -> str:
    return hashlib.blake2b(_text(content), digest_size=_KEY_BYTES).hexdigest()


def _text(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
