"""Both sides of a gate, matched by canonical id: what is known of each matrix, and of what lies outside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeVar

from llmtrap.checkpoint import Checkpoint, Skipped, WeightMatrix
from llmtrap.checkpoint.naming import table_of
from llmtrap.gate.document import OutsideTensor, Side, Update
from llmtrap.report.document import Matrix, Report, Settings, SkippedTensor, TensorFinding
from llmtrap.report.trap_changes import Tolerances, TrapChanges, ValuesAt, compare_traps

# With less of either side in the other than this, the two are not one architecture and nothing is judged.
LEAST_SHARED = 0.5


class Named(Protocol):
    """What has a canonical id, and other ids that share its weights, and is stored as a tensor."""

    @property
    def id(self) -> str:
        """The canonical id."""
        ...

    @property
    def tensor(self) -> str:
        """The tensor's name in its file."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """The others."""
        ...


Mine = TypeVar("Mine", bound=Named)
Theirs = TypeVar("Theirs", bound=Named)
Some = TypeVar("Some", bound=Named)


def match_named(mine: Mapping[str, Mine], theirs: Mapping[str, Theirs]) -> list[tuple[Mine, Theirs | None]]:
    """Each of one side with the other side's of that id, or of an alias of it; None where there is none.

    An id may be short because no other matrix wants it, and go to another where that one is gone: where a tensor of
    the same name is on both sides, that is the one.
    """
    known = {alias: other for other in theirs.values() for alias in other.aliases} | dict(theirs)
    mine_by, theirs_by = _by_tensor(mine.values()), _by_tensor(theirs.values())
    moved = {
        it.id: theirs_by[tensor]
        for tensor, it in mine_by.items()
        if tensor in theirs_by and theirs_by[tensor].id not in (it.id, *it.aliases) and it.id in theirs
    }
    taken = {other.id for other in moved.values()}
    pairs: list[tuple[Mine, Theirs | None]] = []
    for it in mine.values():
        names = [name for name in (it.id, *it.aliases) if name in known and not (name == it.id and name in taken)]
        pairs.append((it, moved.get(it.id) or (known[names[0]] if names else None)))
    return pairs


def _by_tensor(matrices: Iterable[Some]) -> dict[str, Some]:
    """Matrices by their tensor's name, of those tensors that one matrix alone is made of."""
    found: dict[str, Some | None] = {}
    for matrix in matrices:
        found[matrix.tensor] = None if matrix.tensor in found else matrix
    return {name: matrix for name, matrix in found.items() if matrix is not None}


def tied_twins(mine: Iterable[Named], theirs: Mapping[str, Named]) -> dict[str, str]:
    """Aliases that the other side stores as a matrix of their own, beside the one of the first name: alias → id.

    Tied weights are then compared with both.
    """
    named = {it.id: it for it in mine}
    return {
        alias: it.id
        for it in named.values()
        for alias in it.aliases
        if alias in theirs and alias not in named and it.id in theirs
    }


@dataclass(frozen=True)
class MatrixRef:
    """A matrix as its checkpoint names it, measured or not."""

    id: str
    tensor: str
    shape: tuple[int, int]
    encoding: str
    aliases: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The module kind: the id without its numbers."""
        return module_kind(self.id)


@dataclass(frozen=True)
class CheckpointContents:
    """One side: every matrix that was planned, what was measured of them, what failed, and what is no matrix.

    `skipped` is what no matrix is read from. `part` says which share of the checkpoint a report is of, where it is not
    the whole. `tensors` are a report's findings outside the matrices; None where it did not look there.
    """

    side: Side
    described: dict[str, MatrixRef]
    measured: Mapping[str, Matrix]
    failed: Mapping[str, str]
    skipped: Mapping[str, Skipped | SkippedTensor]
    parameters: int
    part: str | None = None
    is_report: bool = False
    tensors: tuple[TensorFinding, ...] | None = None

    @classmethod
    def of_report(cls, report: Report) -> CheckpointContents:
        """What a report holds. An older one may have measured tables, which are no matrices any more."""
        matrices = [matrix for matrix in report.matrices if table_of(matrix.role) is None]
        described = {m.id: MatrixRef(m.id, m.tensor, m.shape, m.encoding, m.aliases) for m in matrices}
        described |= {f.id: MatrixRef(f.id, f.tensor, (0, 0), "") for f in report.coverage.failed}
        return cls(
            side=side_of(report),
            described=described,
            measured={m.id: m for m in matrices},
            failed={f.id: f.error for f in report.coverage.failed},
            skipped={s.tensor: s for s in report.coverage.skipped},
            parameters=sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices),
            part=part_of(report.settings),
            is_report=True,
            tensors=None if report.coverage.counts is None else tuple(report.tensors),
        )

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Checkpoint, matrices: Mapping[str, WeightMatrix], report: Report | None
    ) -> CheckpointContents:
        """What a checkpoint holds, of which `report` measured the changed matrices alone."""
        identity = checkpoint.catalogue.identity
        return cls(
            side=Side(
                name=identity.shown_name, kind=identity.kind, revision=identity.revision, family=checkpoint.family
            ),
            described={m.id: MatrixRef(m.id, m.tensor, m.shape, m.encoding, m.aliases) for m in matrices.values()},
            measured={} if report is None else {m.id: m for m in report.matrices},
            failed={} if report is None else {f.id: f.error for f in report.coverage.failed},
            skipped={s.tensor: s for s in checkpoint.skipped},
            parameters=sum(matrix.size for matrix in matrices.values()),
        )

    def with_twins(self, base: CheckpointContents) -> CheckpointContents:
        """This side, with tied weights once more under each alias that the base stores as a matrix of its own."""
        twins = tied_twins(self.described.values(), base.described)
        if not twins:
            return self
        described = {**self.described, **{a: replace(self.described[i], id=a, aliases=()) for a, i in twins.items()}}
        measured = {
            **self.measured,
            **{
                alias: self.measured[name].model_copy(update={"id": alias, "aliases": ()})
                for alias, name in twins.items()
                if name in self.measured and alias not in self.measured
            },
        }
        return replace(self, described=described, measured=measured)


@dataclass(frozen=True)
class Pair:
    """One matrix of the target and the same one of the base.

    `now` and `base` are what was measured of each: both None for a matrix whose bytes equal the base's (`unchanged`).
    `error` and `base_error` say why. `base_at` and `now_at` are values of one side where the other
    has entry traps, known where the weights of both were read. `grown` rows are the target's alone; what was measured
    is of the rows that both have.
    """

    it: MatrixRef
    was: MatrixRef
    now: Matrix | None
    base: Matrix | None
    unchanged: bool
    update: Update | None = None
    error: str | None = None
    base_at: ValuesAt | None = None
    now_at: ValuesAt | None = None
    grown: int = 0
    base_error: str | None = None

    @property
    def reshaped(self) -> bool:
        """Whether the two are of different shapes, beyond rows that were added to a vocabulary."""
        return shape_known(self) and not self.grown and sorted(self.it.shape) != sorted(self.was.shape)

    def trap_changes(self, tolerances: Tolerances) -> TrapChanges | None:
        """Which traps are new, stronger, weaker or gone; None where that cannot be told."""
        if self.now is None or self.base is None:
            return None
        return compare_traps(self.now, self.base, self.base_at, self.now_at, tolerances)


@dataclass(frozen=True)
class Known:
    """What is known of pairs beside their measurements, by the target's id."""

    unchanged: frozenset[str] = frozenset()
    updates: Mapping[str, Update] = field(default_factory=dict)
    base_at: Mapping[str, ValuesAt] = field(default_factory=dict)
    now_at: Mapping[str, ValuesAt] = field(default_factory=dict)
    grown: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchedSides:
    """Target and base, matched. Without a base, `alone` has the target's matrices and `pairs` is empty.

    `outside` are the tensors that are no matrices and are broken or changed; None where the weights of a side were not
    at hand. `own_files` are the weight files that were not looked at and are the base's, byte for byte. `notes` is what
    every output should say.
    """

    target: CheckpointContents
    base: CheckpointContents | None
    pairs: tuple[Pair, ...] = ()
    alone: tuple[MatrixRef, ...] = ()
    missing: tuple[MatrixRef, ...] = ()
    updates: Mapping[str, Update] = field(default_factory=dict)
    outside: tuple[OutsideTensor, ...] | None = None
    own_files: frozenset[str] = frozenset()
    adapter_alone: bool = False
    unknown_base: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property  # asked for every gap and every finding, of which there may be one a matrix
    def same_architecture(self) -> bool:
        """Whether enough of each side is found in the other, in the same shape, for a judgement to mean anything."""
        if self.base is None:
            return True
        fits = sum(not pair.reshaped for pair in self.pairs)
        smaller = min(len(self.target.described), len(self.base.described))
        return smaller > 0 and fits >= LEAST_SHARED * smaller

    @cached_property
    def changed(self) -> list[Pair]:
        """Pairs whose bytes differ, or may."""
        return [pair for pair in self.pairs if not pair.unchanged]


def match(target: CheckpointContents, base: CheckpointContents | None, known: Known | None = None) -> MatchedSides:
    """Match two sides by canonical id, aliases of tied weights included.

    Args:
        target: what is judged.
        base: what it is judged against.
        known: what is known of the pairs beside their measurements.
    """
    more = known or Known()
    if base is None:
        return MatchedSides(target, None, alone=tuple(target.described.values()), updates=more.updates)
    target = target.with_twins(base)
    pairs, alone, taken = [], [], set()
    for it, was in match_named(target.described, base.described):
        if was is None:
            alone.append(it)
            continue
        taken.add(was.id)
        pairs.append(
            Pair(
                it, was, target.measured.get(it.id), base.measured.get(was.id), it.id in more.unchanged,
                more.updates.get(it.id), target.failed.get(it.id), more.base_at.get(it.id), more.now_at.get(it.id),
                more.grown.get(it.id, 0), base.failed.get(was.id),
            )
        )  # fmt: skip
    missing = tuple(was for name, was in base.described.items() if name not in taken)
    return MatchedSides(target, base, tuple(pairs), tuple(alone), missing, more.updates)


def module_kind(identity: str) -> str:
    """The module kind of a canonical id: the id without its numbers."""
    parts = [part for part in identity.split(".") if not part.isdecimal()]
    if len(parts) > 1 and parts[0] == "layers":
        parts = parts[1:]
    return ".".join(parts) or identity


def part_of(settings: Settings) -> str | None:
    """Which part of a checkpoint was audited, in the words of the command line; None for the whole."""
    words = [f"--include {glob}" for glob in settings.include] + [f"--exclude {glob}" for glob in settings.exclude]
    return " ".join(words) or None


def side_of(report: Report) -> Side:
    """What a report is of."""
    target = report.target
    return Side(name=target.name, kind=target.kind, revision=target.revision, family=target.family)


def shape_known(pair: Pair) -> bool:
    """Whether both shapes are known: a report does not give that of a matrix that failed."""
    return 0 not in (*pair.it.shape, *pair.was.shape)
