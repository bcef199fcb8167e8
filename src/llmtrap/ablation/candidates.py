"""Which parts of which matrices are worth an ablation: traps, large entries, and what makes massive activations.

Traps alone are the wrong list: the one entry that destroys SmolLM2 is no trap, and its three strongest traps do nothing
(docs/ablation.md). So every large entry of the projections that write into the residual stream is a candidate too, and
so is an entry that carries most of an activation's spike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.ablation.stored_values import Place
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.report.document import Matrix, Report
from llmtrap.spectra.certificate import Bulk, bulk_of, entry_limit, exceedances
from llmtrap.spectra.moments import MomentPass

Floats = NDArray[np.float32]
CandidateKind = Literal["entry", "mean_shift", "far_entries", "top_component"]
Origin = Literal["trap", "large_entry", "activation", "fisher", "asked_for"]

LARGE_ENTRY = 0.7
"""Share of the entry limit s(NM)^¼ from which on an entry is a candidate."""
MOST_ENTRIES = 8
"""Entries of one matrix that become candidates one by one; a matrix with more far entries has a heavy tail."""
_WRITERS = ("down", "o", "out")


@dataclass(frozen=True)
class Candidate:
    """A part of one stored matrix that can be ablated.

    `limits` is |w − m| in entry limits, `sigmas` in standard deviations of the bulk; both are None for a kind that is
    no single entry; `screened` is ½ δ² F where the model was screened. `place` is where the matrix is stored, `row` and
    `column` count within it.
    """

    matrix: str
    place: Place
    kind: CandidateKind
    origins: tuple[Origin, ...]
    row: int | None = None
    column: int | None = None
    value: float | None = None
    mean: float = 0.0
    limits: float | None = None
    sigmas: float | None = None
    reach: float = 0.0
    screened: float | None = None

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes two candidates one."""
        return (
            self.matrix,
            self.kind,
            -1 if self.row is None else self.row,
            -1 if self.column is None else self.column,
        )

    @property
    def name(self) -> str:
        """A unique name: the matrix, and the entry or the kind."""
        what = f"[{self.row}, {self.column}]" if self.kind == "entry" else self.kind
        return f"{self.matrix} {what}"


def place_of(matrix: WeightMatrix) -> Place:
    """Where a whole stored matrix lies."""
    return Place(matrix.tensor, matrix.index)


def writes_residual(matrix: WeightMatrix) -> bool:
    """Whether a matrix writes into the residual stream: a down projection, or attention's output."""
    return matrix.role.rsplit(".", 1)[-1] in _WRITERS


def bulk_of_matrix(matrix: WeightMatrix, source: Source) -> Bulk:
    """Mean and deviation of the entries within the entry limit (docs/definitions.md, section 3)."""
    sums = MomentPass()
    for block in matrix.blocks(source):
        sums.add(block)
    moments = sums.finish(matrix.blocks(source))
    return bulk_of(matrix.shape, moments, lambda: matrix.blocks(source))


def entry_candidate(matrix: WeightMatrix, bulk: Bulk, row: int, column: int, value: float, origin: Origin) -> Candidate:
    """One entry as a candidate."""
    sigmas = abs(value - bulk.mean) / bulk.deviation if bulk.deviation else 0.0
    limit = entry_limit(*matrix.shape)
    return Candidate(
        matrix.id, place_of(matrix), "entry", (origin,), row, column, value, bulk.mean, sigmas / limit, sigmas
    )


def large_entries(matrix: WeightMatrix, source: Source, bulk: Bulk, origin: Origin = "large_entry") -> list[Candidate]:
    """Entries beyond LARGE_ENTRY of the limit, largest first; of a heavy tail the far entries together as well."""
    limit = entry_limit(*matrix.shape) * bulk.deviation
    if limit == 0:
        return []
    found = exceedances(matrix.blocks(source), bulk.mean, LARGE_ENTRY * limit)
    order = np.argsort(-np.abs(found.values - bulk.mean), kind="stable")
    entries = [
        entry_candidate(matrix, bulk, int(found.rows[k]), int(found.columns[k]), float(found.values[k]), origin)
        for k in order[:MOST_ENTRIES]
    ]
    if len(order) > MOST_ENTRIES:
        entries.append(
            Candidate(matrix.id, place_of(matrix), "far_entries", (origin,), mean=bulk.mean, reach=LARGE_ENTRY * limit)
        )
    return entries


def trap_candidates(matrix: WeightMatrix, measured: Matrix, source: Source, bulk: Bulk) -> list[Candidate]:
    """What the report's traps of one matrix stand for: entries, a shift of the mean, a heavy tail as a whole."""
    found: list[Candidate] = []
    limit = entry_limit(*matrix.shape) * bulk.deviation
    for trap in () if measured.traps is None else measured.traps.found:
        cause = trap.cause
        if cause.kind == "entry" and cause.row is not None and cause.column is not None and cause.value is not None:
            found.append(entry_candidate(matrix, bulk, cause.row, cause.column, cause.value, "trap"))
        elif cause.kind == "mean_shift":
            found.append(Candidate(matrix.id, place_of(matrix), "mean_shift", ("trap",), mean=bulk.mean))
        elif cause.kind == "heavy_tail":
            found += [
                Candidate(matrix.id, place_of(matrix), "far_entries", ("trap",), mean=bulk.mean, reach=limit / 2),
                Candidate(matrix.id, place_of(matrix), "top_component", ("trap",), mean=bulk.mean),
            ]
    del source
    return found


def has_traps(matrix: Matrix) -> bool:
    """Whether the report found at least one trap in a matrix."""
    return matrix.traps is not None and matrix.traps.count > 0


def weight_candidates(
    matrices: Iterable[WeightMatrix], report: Report, source: Source, globs: Sequence[str] = ()
) -> list[Candidate]:
    """Candidates that the weights alone give: one pass over the matrices with traps and the residual writers."""
    measured = {m.id: m for m in report.matrices}
    found: list[Candidate] = []
    for matrix in matrices:
        if globs and not any(fnmatchcase(name, glob) for name in (matrix.id, matrix.tensor) for glob in globs):
            continue
        known = measured.get(matrix.id)
        trapped = known is not None and has_traps(known)
        broken = known is not None and known.non_finite is not None
        if broken or not (trapped or writes_residual(matrix) or globs):
            continue
        bulk = bulk_of_matrix(matrix, source)
        if known is not None and trapped:
            found += trap_candidates(matrix, known, source, bulk)
        found += large_entries(matrix, source, bulk, "asked_for" if globs else "large_entry")
    return found


def merged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each candidate once, with all its origins: traps, massive activations, screened ones, the rest by size."""
    by_key: dict[tuple[str, str, int, int], Candidate] = {}
    for candidate in candidates:
        known = by_key.get(candidate.key)
        if known is None:
            by_key[candidate.key] = candidate
        else:
            origins = (*known.origins, *(o for o in candidate.origins if o not in known.origins))
            screened = candidate.screened if known.screened is None else known.screened
            by_key[candidate.key] = replace(known, origins=origins, screened=screened)
    rank = {"trap": 0, "activation": 1, "fisher": 2, "asked_for": 3, "large_entry": 3}

    def order(candidate: Candidate) -> tuple[int, float, tuple[str, str, int, int]]:
        first = min(rank[origin] for origin in candidate.origins)
        by = candidate.screened if first == rank["fisher"] else candidate.limits
        return first, -(9.0 if by is None else by), candidate.key

    return sorted(by_key.values(), key=order)
