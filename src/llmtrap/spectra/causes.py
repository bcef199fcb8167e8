"""Why a matrix has traps: its mean, single huge entries, or a heavy tail of many.

An eigenvalue that goes away with the mean is a mean shift; one that goes away when the entries near or beyond the
entry limit are set to the mean is such an entry's; what stays is the tail's. Removing the suspects decides how many
there are of each kind, and the overlap of singular vectors with a suspect's row and column decides which is which:
near the limit the overlap alone is too small to tell (docs/definitions.md).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends import Backend
from llmtrap.spectra.certificate import Bulk, Exceedances, entry_limit, expected_overlaps
from llmtrap.spectra.entries import Entries, standardise
from llmtrap.spectra.measured import Cause, Trap
from llmtrap.spectra.suspects import Suspects
from llmtrap.spectra.tracy_widom import EdgeLaw, survival
from llmtrap.spectra.traps import SUSPECT_FROM, TrapMeasurement, TrapSearch, count_beyond, gram_of

# Traps described one by one; beyond that the count says enough.
MOST_DESCRIBED = 64
# Of a heavy tail's traps fewer: none has a place that could be named, and each costs an eigenvector or its like.
MOST_HEAVY = 16


def suspect_distance(shape: tuple[int, int], bulk: Bulk) -> float:
    """|w − m| from which an entry is suspected of being a trap's cause."""
    return SUSPECT_FROM * entry_limit(*shape) * bulk.deviation


def find_causes(
    entries: Entries,
    measured: TrapMeasurement,
    originals: Exceedances,
    bulk: Bulk,
    search: TrapSearch,
    backend: Backend,
) -> tuple[Trap, ...]:
    """Describe the traps of the first shuffle, strongest first within each kind: mean shift, then the centred ones.

    Args:
        entries: the matrix's entries.
        measured: the shuffles, of which the first is explained.
        originals: the stored matrix's entries beyond `suspect_distance`, with their places.
        bulk: the bulk's mean and variance.
        search: as in the measurement.
        backend: where to compute.
    """
    found = _mean_traps(measured, search, backend)
    if measured.first.count.centred:
        found += _centred_traps(entries, measured, originals, bulk, search, backend)
    return tuple(described(value, cause, bulk, measured.law) for value, cause in _worth_describing(found))


def described(value: float, cause: Cause, bulk: Bulk, law: EdgeLaw) -> Trap:
    """A trap by its eigenvalue in units of s²."""
    z = law.z(value)
    return Trap(eigenvalue=value * bulk.variance, z=z, strength=value / law.centre, cause=cause, p_value=survival(z))


def _worth_describing(found: list[tuple[float, Cause]]) -> list[tuple[float, Cause]]:
    """All but the weaker ones of a heavy tail."""
    heavy = [k for k, (_, cause) in enumerate(found) if cause.kind == "heavy_tail"]
    left_out = set(heavy[MOST_HEAVY:])
    return [trap for k, trap in enumerate(found[:MOST_DESCRIBED]) if k not in left_out]


def _mean_traps(measured: TrapMeasurement, search: TrapSearch, backend: Backend) -> list[tuple[float, Cause]]:
    first = measured.first
    if first.count.mean_shift == 0:
        return []
    size = first.whole.shape[0]
    start = search.start_vector(size)
    values, vectors = backend.top_eigenpairs(first.whole, first.count.count, start, vectors=True)
    assert vectors is not None  # noqa: S101 - asked for just above
    overlaps = np.abs(vectors.sum(axis=0)) / math.sqrt(size)
    order = np.argsort(overlaps)[::-1][: first.count.mean_shift]
    return [(float(values[k]), Cause(kind="mean_shift")) for k in sorted(order.tolist())]


def _centred_traps(
    entries: Entries,
    measured: TrapMeasurement,
    originals: Exceedances,
    bulk: Bulk,
    search: TrapSearch,
    backend: Backend,
) -> list[tuple[float, Cause]]:
    n, m = entries.shape
    first = measured.first
    count, suspects = first.count.centred, measured.suspects
    start = search.start_vector(m)
    if suspects.values.size == 0:
        tops, _ = backend.top_eigenpairs(first.centred, min(count, MOST_HEAVY), start, vectors=False)
        return [(float(value), Cause(kind="heavy_tail")) for value in tops]
    # A float32 Gram matrix has no entry that a subtraction could leave nothing of; a float64 one may (DOUBLE_BEYOND).
    cleared = suspects.cleared_gram(first.centred, backend) if first.precision == "float32" else None
    if cleared is None:
        cleared, _ = gram_of(suspects.cleared(entries.shuffled_blocks(search.generator(0))), m, backend)
    left, _ = count_beyond(backend, cleared, measured.edge, start)
    by_entry = min(max(count - left, 0), suspects.values.size)
    values, vectors = backend.top_eigenpairs(first.centred, min(count, MOST_DESCRIBED), start, vectors=True)
    assert vectors is not None  # noqa: S101 - asked for just above
    heavy = [(float(value), Cause(kind="heavy_tail")) for value in values]
    if by_entry == 0:
        return heavy
    places = _match(suspects, values, vectors, n, m)
    # Surest matches first: only as many as went away with the suspects are entries' traps.
    accepted = sorted(places, key=lambda trap: -places[trap][1])[:by_entry]
    named = _original_places(suspects, originals, bulk)
    for trap in accepted:
        row, column, value, sigmas = named[places[trap][0]]
        heavy[trap] = (float(values[trap]), Cause(kind="entry", row=row, column=column, value=value, sigmas=sigmas))
    return heavy


def _match(
    suspects: Suspects, values: NDArray[np.float64], vectors: NDArray[np.float64], n: int, m: int
) -> dict[int, tuple[int, float]]:
    """Give each trap, strongest first, the suspect its singular vectors sit on, with how well they do."""
    columns, size = suspects.columns, suspects.values.astype(np.float64)
    contents, indices = suspects.kept_rows()
    # Left vector on the suspect's row, u = R v / √λ, and right vector on its column.
    left = (contents.astype(np.float64) @ vectors) ** 2 / np.maximum(values, 1e-300)
    right = vectors[columns[indices], :] ** 2
    scores = left * right
    strength = size[indices] ** 2 / n
    best_possible = np.array([max(math.prod(expected_overlaps(s, m / n)), 0.02) for s in strength])
    quality = scores / best_possible[:, None]
    taken: set[int] = set()
    matched: dict[int, tuple[int, float]] = {}
    for trap in range(values.size):
        order = [k for k in np.argsort(scores[:, trap])[::-1].tolist() if k not in taken]
        if order:
            taken.add(order[0])
            matched[trap] = (int(indices[order[0]]), float(quality[order[0], trap]))
    return matched


def _original_places(
    suspects: Suspects, originals: Exceedances, bulk: Bulk
) -> dict[int, tuple[int, int, float, float]]:
    """Undo the permutation for the suspects: the shuffle only moved them, so order by value pairs them up.

    Entries of one value are exchangeable: which of two equal entries went where is not a fact about the matrix.
    """
    standard = standardise(originals.values, bulk)
    inside = np.abs(standard) >= suspects.threshold
    order = np.argsort(standard[inside], kind="stable")
    rows, columns = originals.rows[inside][order], originals.columns[inside][order]
    values, sigmas = originals.values[inside][order], standard[inside][order]
    return {
        int(suspect): (int(rows[k]), int(columns[k]), float(values[k]), float(sigmas[k]))
        for k, suspect in enumerate(np.argsort(suspects.values, kind="stable").tolist())
        if k < rows.size
    }
