"""Match the matrices of a target and its base by canonical id, never by file, shard or storage format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmtrap.audit import Plan
from llmtrap.checkpoint import Checkpoint
from llmtrap.gate.document import Side, Update
from llmtrap.report.document import Matrix, Report, Settings

# With less of either side in the other than this, the two are not one architecture and nothing is judged.
LEAST_SHARED = 0.5


@dataclass(frozen=True)
class Described:
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
class Contents:
    """One side: every matrix that was planned, what was measured of them, what failed, and what is no matrix."""

    side: Side
    described: dict[str, Described]
    measured: Mapping[str, Matrix]
    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    settings: Settings | None

    @classmethod
    def of_report(cls, report: Report) -> Contents:
        """What a report holds."""
        described = {m.id: Described(m.id, m.tensor, m.shape, m.encoding, m.aliases) for m in report.matrices}
        described |= {f.id: Described(f.id, f.tensor, (0, 0), "") for f in report.coverage.failed}
        return cls(
            side=side_of(report),
            described=described,
            measured={m.id: m for m in report.matrices},
            failed={f.id: f.error for f in report.coverage.failed},
            skipped={s.tensor: s.reason for s in report.coverage.skipped},
            settings=report.settings,
        )

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, plan: Plan, report: Report | None) -> Contents:
        """What a checkpoint holds, of which `report` measured the changed matrices alone."""
        identity = checkpoint.catalogue.identity
        chosen = [task.matrix for task in plan.tasks]
        return cls(
            side=Side(name=identity.name, kind=identity.kind, revision=identity.revision, family=checkpoint.family),
            described={m.id: Described(m.id, m.tensor, m.shape, m.encoding, m.aliases) for m in chosen},
            measured={} if report is None else {m.id: m for m in report.matrices},
            failed={} if report is None else {f.id: f.error for f in report.coverage.failed},
            skipped={s.tensor: s.reason for s in plan.skipped},
            settings=None if report is None else report.settings,
        )


@dataclass(frozen=True)
class Pair:
    """One matrix of the target and the same one of the base.

    `now` and `base` are what was measured of each: both None for a matrix whose bytes equal the base's (`unchanged`).
    `error` says why the target's could not be measured.
    """

    it: Described
    was: Described
    now: Matrix | None
    base: Matrix | None
    unchanged: bool
    update: Update | None = None
    error: str | None = None


@dataclass(frozen=True)
class Matched:
    """Target and base, matched. Without a base, `alone` has the target's matrices and `pairs` is empty."""

    target: Contents
    base: Contents | None
    pairs: tuple[Pair, ...] = ()
    alone: tuple[Described, ...] = ()
    missing: tuple[Described, ...] = ()
    updates: Mapping[str, Update] = field(default_factory=dict)
    adapter_alone: bool = False

    @property
    def same_architecture(self) -> bool:
        """Whether enough of each side is found in the other, in the same shape, for a judgement to mean anything."""
        if self.base is None:
            return True
        known = [pair for pair in self.pairs if _shape_known(pair)]
        fits = sum(sorted(pair.it.shape) == sorted(pair.was.shape) for pair in known)
        fits += len(self.pairs) - len(known)
        smaller = min(len(self.target.described), len(self.base.described))
        return smaller > 0 and fits >= LEAST_SHARED * smaller


def match(
    target: Contents,
    base: Contents | None,
    unchanged: frozenset[str] = frozenset(),
    updates: Mapping[str, Update] | None = None,
    *,
    adapter_alone: bool = False,
) -> Matched:
    """Match two sides by canonical id, aliases of tied weights included.

    Args:
        target: what is judged.
        base: what it is judged against.
        unchanged: ids of the target whose bytes equal the base's.
        updates: the spectrum of ΔW of changed matrices, by the target's id.
        adapter_alone: the target is a LoRA adapter without its base model.
    """
    changes = dict(updates or {})
    if base is None:
        return Matched(target, None, alone=tuple(target.described.values()), updates=changes,
                       adapter_alone=adapter_alone)  # fmt: skip
    pairs, alone, taken = [], [], set()
    for it, was in match_described(target.described, base.described):
        if was is None:
            alone.append(it)
            continue
        taken.add(was.id)
        pairs.append(
            Pair(
                it, was, target.measured.get(it.id), base.measured.get(was.id), it.id in unchanged,
                changes.get(it.id), target.failed.get(it.id),
            )
        )  # fmt: skip
    missing = tuple(was for name, was in base.described.items() if name not in taken)
    return Matched(target, base, tuple(pairs), tuple(alone), missing, changes)


def match_described(
    target: Mapping[str, Described], base: Mapping[str, Described]
) -> list[tuple[Described, Described | None]]:
    """Each matrix of the target with the base's of that id, or of an alias of it; None where there is none."""
    known = {alias: was for was in base.values() for alias in was.aliases} | dict(base)
    return [(it, next((known[n] for n in (it.id, *it.aliases) if n in known), None)) for it in target.values()]


def module_kind(identity: str) -> str:
    """The module kind of a canonical id: the id without its numbers."""
    parts = [part for part in identity.split(".") if not part.isdecimal()]
    if len(parts) > 1 and parts[0] == "layers":
        parts = parts[1:]
    return ".".join(parts) or identity


def side_of(report: Report) -> Side:
    """What a report is of."""
    target = report.target
    return Side(name=target.name, kind=target.kind, revision=target.revision, family=target.family)


def _shape_known(pair: Pair) -> bool:
    return 0 not in (*pair.it.shape, *pair.was.shape)
