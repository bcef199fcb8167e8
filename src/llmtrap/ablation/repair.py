"""Repair single entries of a checkpoint: from its base, else to the mean of the matrix; never what the model needs.

Damage and the large entries that language models rely on look alike in the weights. So an entry is changed only where
something tells them apart: a base that has another value there, a text on which the model does not get worse, or a
value that no training leaves behind (docs/ablation.md, "Repair").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from llmtrap.ablation.candidates import bulk_of_matrix
from llmtrap.ablation.document import AblationReport
from llmtrap.ablation.rewrite import patch_of, rewrite, rounded
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.errors import LlmtrapError, TargetError, UsageError
from llmtrap.report.document import Report
from llmtrap.spectra.certificate import Bulk, entry_limit
from llmtrap.version import __version__

MANIFEST = "llmtrap-repair.json"
IMPLAUSIBLE = 20.0
"""An entry this many entry limits from the mean is no trained weight; it may be repaired without a text or a base."""
NLL_RISE = 0.005
NLL_ERRORS = 2.0
MOST_IN_ONE = 64
"""More broken entries than this in one matrix are not single entries: the tensor must come from the base."""

_PLACE = re.compile(r"\s*\d{1,15}\s*")

Remedy = Literal["base", "mean", "clip"]


@dataclass(frozen=True)
class Location:
    """One named entry."""

    matrix: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.matrix} [{self.row}, {self.column}]"

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read ID:ROW,COL.

        Raises:
            UsageError: it has another form.
        """
        identity, _, place = text.rpartition(":")
        parts = place.split(",")
        if not identity or len(parts) != 2 or not all(_PLACE.fullmatch(part) for part in parts):
            raise UsageError(f"--entry {text!r} is no ID:ROW,COLUMN", remedy="For example: layers.5.mlp.down:17,230")
        return cls(identity, int(parts[0]), int(parts[1]))


@dataclass(frozen=True)
class Repair:
    """One entry with its old and new value; NaN and infinities are given as text in the manifest."""

    location: Location
    before: float
    after: float
    by: Remedy
    limits: float | None


@dataclass(frozen=True)
class Refused:
    """An entry that is left as it is, and why."""

    location: Location
    reason: str


@dataclass(frozen=True)
class RepairPlan:
    """What will be changed and what will not."""

    repairs: tuple[Repair, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class TextCheck:
    """Negative log-likelihood on text, nats a token, before and after; None where it is not finite."""

    before: float | None
    after: float | None
    change: float | None
    se: float | None


def plan_repair(
    checkpoint: Checkpoint,
    report: Report,
    entries: Sequence[Location] = (),
    *,
    base: Checkpoint | None = None,
    ablation: AblationReport | None = None,
    clip: bool = False,
) -> RepairPlan:
    """Decide for each named entry what it becomes, or why it stays.

    Args:
        checkpoint: what is to be repaired.
        report: an audit of it: without `entries` its entry traps and its NaN and infinite entries are meant.
        entries: the entries meant.
        base: the model that the checkpoint was trained from.
        ablation: of the checkpoint: what it calls needed stays, and so does what it calls inert.
        clip: to the entry limit, with the sign kept, in the place of the mean.

    Raises:
        UsageError: an entry names no matrix of the checkpoint, or a place outside it.
    """
    matrices = {m.id: m for m in checkpoint.matrices}
    repairs: list[Repair] = []
    refused: list[Refused] = []
    bulks: dict[str, Bulk] = {}
    for location in _unique(entries or _reported(checkpoint, report, refused)):
        matrix = _matrix(matrices, location)
        values = matrix.read(checkpoint.source)
        if location.matrix not in bulks:
            bulks[location.matrix] = _finite_bulk(matrix, checkpoint)
        bulk = bulks[location.matrix]
        before = float(values[location.row, location.column])
        limits = _limits(before, matrix, bulk)
        restored = _in_base(base, location, matrix)
        if (reason := _must_stay(location, ablation, restored, limits)) is not None:
            refused.append(Refused(location, reason))
            continue
        if restored is not None:
            by: Remedy = "base"
            after = restored
        elif clip and math.isfinite(before):
            by = "clip"
            after = bulk.mean + math.copysign(entry_limit(*matrix.shape) * bulk.deviation, before - bulk.mean)
        else:
            by, after = "mean", bulk.mean
        after = rounded(after, matrix)
        if after == before:
            refused.append(Refused(location, "it has this value already"))
            continue
        try:
            patch_of(matrix, location.row, location.column, before, after)
        except LlmtrapError as error:
            refused.append(Refused(location, error.problem))
            continue
        repairs.append(Repair(location, before, after, by, limits))
    return RepairPlan(tuple(repairs), tuple(refused))


def without_text(plan: RepairPlan) -> RepairPlan:
    """The plan where no text can be asked: only what the base says, and what is implausible, is changed."""
    kept, refused = [], list(plan.refused)
    for repair in plan.repairs:
        if repair.by == "base" or repair.limits is None or repair.limits >= IMPLAUSIBLE:
            kept.append(repair)
        else:
            reason = (
                f"at {repair.limits:.2f} entry limits it may be an entry that the model relies on, "
                "and without a base or a text nothing tells"
            )
            refused.append(Refused(repair.location, reason))
    return RepairPlan(tuple(kept), tuple(refused))


def judged_on_text(plan: RepairPlan, checks: dict[str, TextCheck], named: Collection[Location] = ()) -> RepairPlan:
    """The plan without the entries that the model predicts the text worse without, and without those that do nothing.

    Args:
        plan: of repairs.
        checks: what each repair alone changes, by the name of its location.
        named: entries that were asked for by name: these are repaired even where the text does not tell.
    """
    kept, refused = [], list(plan.refused)
    for repair in plan.repairs:
        change, se = (check := checks[repair.location.name]).change, check.se or 0.0
        matters = change is None or (abs(change) > NLL_RISE and abs(change) > NLL_ERRORS * se)
        plausible = repair.by != "base" and repair.limits is not None and repair.limits < IMPLAUSIBLE
        if change is not None and matters and change > 0:
            reason = f"with it changed the model predicts the text worse, by {change:.4f} ± {se:.4f} nats a token"
            refused.append(Refused(repair.location, reason))
        elif plausible and not matters and repair.location not in named:
            reason = "the model predicts the text no better without it: nothing to repair"
            refused.append(Refused(repair.location, reason))
        else:
            kept.append(repair)
    return RepairPlan(tuple(kept), tuple(refused))


def write_repaired(checkpoint: Checkpoint, plan: RepairPlan, out: Path, check: TextCheck | None) -> None:
    """Write the repaired copy with its manifest.

    Raises:
        TargetError: the checkpoint is not a local folder.
        OutputError: the copy could not be written.
    """
    identity = checkpoint.catalogue.identity
    if identity.kind != "folder":
        remedy = "Download it: hf download REPOSITORY --local-dir DIR"
        raise TargetError("only a local folder can be repaired", file=identity.name, remedy=remedy)
    matrices = {m.id: m for m in checkpoint.matrices}
    patches = [
        patch_of(matrices[r.location.matrix], r.location.row, r.location.column, r.before, r.after)
        for r in plan.repairs
    ]
    rewrite(Path(identity.name), out, patches, {MANIFEST: manifest(plan, check, identity.name)})


def manifest(plan: RepairPlan, check: TextCheck | None, source: str) -> bytes:
    """What was changed: every entry with its old and new value, and the text's judgement."""
    document = {
        "schema": "llmtrap.repair/1",
        "tool": {"name": "llmtrap", "version": __version__},
        "source": Path(source).name,
        "repairs": [
            asdict(repair) | {"before": _json_number(repair.before), "after": repair.after} for repair in plan.repairs
        ],
        "refused": [asdict(item) for item in plan.refused],
        "text": None if check is None else asdict(check),
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode("ascii")


def _reported(checkpoint: Checkpoint, report: Report, refused: list[Refused]) -> Iterable[Location]:
    """Entries that the report names, and every NaN and infinite entry of the matrices that hold some."""
    matrices = {m.id: m for m in checkpoint.matrices}
    for measured in report.matrices:
        matrix = matrices.get(measured.id)
        if matrix is None:
            continue
        if measured.non_finite is not None:
            values = matrix.read(checkpoint.source)
            rows, columns = np.nonzero(~np.isfinite(values))
            if len(rows) > MOST_IN_ONE:
                first = Location(measured.id, int(rows[0]), int(columns[0]))
                reason = f"{len(rows)} entries of this matrix are NaN or infinite: restore the tensor from the base"
                refused.append(Refused(first, reason))
                continue
            yield from (Location(measured.id, int(r), int(c)) for r, c in zip(rows, columns, strict=True))
        elif measured.traps is not None:
            for trap in measured.traps.found:
                if trap.cause.kind == "entry" and trap.cause.row is not None and trap.cause.column is not None:
                    yield Location(measured.id, trap.cause.row, trap.cause.column)


def _unique(locations: Iterable[Location]) -> list[Location]:
    return list(dict.fromkeys(locations))


def _matrix(matrices: dict[str, WeightMatrix], location: Location) -> WeightMatrix:
    matrix = matrices.get(location.matrix)
    if matrix is None:
        raise UsageError(f"no matrix is called {location.matrix!r}", remedy="llmtrap inspect TARGET --all lists them")
    if location.row >= matrix.shape[0] or location.column >= matrix.shape[1]:
        rows, columns = matrix.shape
        problem = f"{location.name} lies outside a matrix of {rows} × {columns}"
        raise UsageError(problem, remedy="Rows and columns count from 0")
    return matrix


def _finite_bulk(matrix: WeightMatrix, checkpoint: Checkpoint) -> Bulk:
    """Mean and deviation of the bulk; of a matrix with NaN or infinite entries, of the finite ones."""
    values = matrix.read(checkpoint.source)
    finite = np.isfinite(values)
    if finite.all() and float(np.abs(values).max(initial=0.0)) < 1e15:
        return bulk_of_matrix(matrix, checkpoint.source)
    inside = values[finite].astype(np.float64)
    middle = float(np.median(inside))
    spread = float(np.median(np.abs(inside - middle))) * 1.4826
    near = inside[np.abs(inside - middle) <= entry_limit(*matrix.shape) * spread] if spread else inside
    return Bulk(float(near.mean()), float(near.var()))


def _limits(value: float, matrix: WeightMatrix, bulk: Bulk) -> float | None:
    """Distance from the mean in entry limits; None for NaN and infinity, or where nothing varies."""
    if not math.isfinite(value) or bulk.deviation == 0:
        return None
    return abs(value - bulk.mean) / bulk.deviation / entry_limit(*matrix.shape)


def _in_base(base: Checkpoint | None, location: Location, matrix: WeightMatrix) -> float | None:
    if base is None:
        return None
    was = next((m for m in base.matrices if m.id == location.matrix), None)
    if was is None or was.shape != matrix.shape:
        return None
    value = float(was.read(base.source)[location.row, location.column])
    return value if math.isfinite(value) else None


def _must_stay(
    location: Location, ablation: AblationReport | None, restored: float | None, limits: float | None
) -> str | None:
    if ablation is None:
        return None
    for candidate in ablation.candidates:
        if (candidate.matrix, candidate.row, candidate.column) != (location.matrix, location.row, location.column):
            continue
        if candidate.label == "needed" and restored is None:
            return "the ablation calls it needed: the model predicts text worse without it"
        if candidate.label == "inert" and limits is not None and limits < IMPLAUSIBLE:
            return "the ablation calls it inert: nothing to repair"
    return None


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
