"""What will be measured and in which order, how much is read, and about how long it takes; nothing is read yet."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from llmtrap.audit.settings import AuditSettings, Part
from llmtrap.checkpoint import Checkpoint, Skipped, WeightMatrix
from llmtrap.checkpoint.selection import selects
from llmtrap.errors import UsageError
from llmtrap.report.wording import join, printable
from llmtrap.spectra.matrix_data import HELD_ENTRIES
from llmtrap.version import __version__

# Work per second of one core with one BLAS thread, measured on a server core whose neighbour worked too
# (docs/scaling.md): only for the estimate that is shown before a run.
_GRAM_PER_SECOND = 8e10
_EIGEN_PER_SECOND = 4e10
_ENTRIES_PER_SECOND = 3e8
_COUNTED_PER_SECOND = 1.4e9
_EACH = 0.02


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


def make_plan(checkpoint: Checkpoint, settings: AuditSettings, part: Part | None = None) -> Plan:
    """Choose and order the matrices of a checkpoint.

    Work goes shard by shard, so that each is read once and together, and within a shard the largest matrices go
    first, so that no worker is left with one at the end. Matrices too large to hold, which are the embeddings, go
    before all others: one that must be shuffled takes as long as dozens of them.
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
    tasks = tuple(_task(matrix, settings, stamps, common) for matrix in chosen)
    shards = {name: k for k, name in enumerate(stamps)}
    order = sorted(
        range(len(tasks)),
        key=lambda k: (not _is_huge(tasks[k].matrix), shards.get(_shard(tasks[k].matrix), 0), -tasks[k].cost, k),
    )
    mine = tuple(order[share.number - 1 :: share.of])
    left_out = (*checkpoint.skipped, *skipped)
    # All that a report of the journal alone is made of: the tensors beside the matrices too.
    whole = [common, stamps, [[task.matrix.id, task.key] for task in tasks], [[s.tensor, s.reason] for s in left_out]]
    return Plan(tasks, mine, left_out, _digest(whole))


def unused_patterns(matrices: Sequence[WeightMatrix], settings: AuditSettings) -> tuple[str, ...]:
    """The patterns of --exclude that match nothing, which are worth a word to whoever gave them.

    Raises:
        UsageError: a pattern of --include matches nothing: what was to be measured would not be.
    """
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
    """What is asked for, and what is not: one entry a matrix, or a tensor whose parts are all left out."""
    chosen: list[WeightMatrix] = []
    left_out: dict[str, Skipped] = {}
    for matrix in matrices:
        reason = _excluded(matrix, settings)
        if reason is None:
            chosen.append(matrix)
            continue
        name = matrix.id if len(matrix.stored.shape) > 2 else matrix.tensor
        known = left_out.get(name, Skipped(name, reason, "on_request"))
        parameters, size = known.parameters + matrix.size, known.bytes + _bytes(matrix)
        left_out[name] = replace(known, parameters=parameters, bytes=size)
    return chosen, list(left_out.values())


def _excluded(matrix: WeightMatrix, settings: AuditSettings) -> str | None:
    names = _names(matrix)
    for glob in settings.exclude:
        if selects(glob, names, matrix.part):
            return f"excluded by --exclude {glob}"
    if settings.include and not any(selects(glob, names, matrix.part) for glob in settings.include):
        return "not included by --include"
    return None


def _task(matrix: WeightMatrix, settings: AuditSettings, stamps: dict[str, str], common: dict[str, object]) -> Task:
    parts = matrix.stored.parts
    content = {
        **common,
        "id": matrix.id,
        "parts": [
            [part.name, part.dtype, list(part.shape), part.span.file, part.span.start, stamps.get(part.span.file, "")]
            for part in parts
        ],
        "slice": [matrix.index, repr(matrix.rows), repr(matrix.columns)],
        "meta": [
            matrix.part,
            matrix.layer,
            matrix.role,
            matrix.expert,
            list(matrix.shape),
            matrix.encoding,
            list(matrix.aliases),
        ],
    }
    return Task(matrix, _digest(content), core_seconds(matrix.shape, settings), _bytes(matrix))


def _bytes(matrix: WeightMatrix) -> int:
    """The stored bytes that are this matrix's: of a stack or a fused tensor its share."""
    stored = matrix.stored
    return sum(span.size for part in stored.parts for span in part.spans) * matrix.size // math.prod(stored.shape)


def core_seconds(shape: tuple[int, int], settings: AuditSettings) -> float:
    """Estimated seconds of one core for a matrix of this shape, if it is certified; a shuffle takes as long again.

    The model and where its rates come from: docs/scaling.md.
    """
    n, m = max(shape), min(shape)
    if not settings.alpha:
        return _EACH + n * m / _COUNTED_PER_SECOND
    shuffles = 1.0 if settings.traps == "measure" else 0.0
    gram = float(n) * m * m / _GRAM_PER_SECOND
    eigen = 4 / 3 * float(m) ** 3 / _EIGEN_PER_SECOND
    return _EACH + n * m / _ENTRIES_PER_SECOND + (gram + eigen) * (1 + shuffles)


def _is_huge(matrix: WeightMatrix) -> bool:
    return matrix.shape[0] * matrix.shape[1] > HELD_ENTRIES


def _shard(matrix: WeightMatrix) -> str:
    return matrix.stored.parts[0].span.file


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
