"""Which matrix of the target is which of the base, from headers alone: by canonical id, never by file or format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmtrap.checkpoint import Checkpoint, Stripes, WeightMatrix
from llmtrap.checkpoint.adapted import JoinedSource
from llmtrap.checkpoint.parts import open_parts
from llmtrap.gate.matching import match_named, tied_twins

Matrices = dict[str, WeightMatrix]

# Matrices with one row a token: a fine-tune may add tokens, and the others keep their rows.
VOCABULARY = frozenset({"embedding", "unembedding"})


@dataclass(frozen=True)
class MatrixPair:
    """A matrix of the target and the same one of the base, of which `grown` counts the rows that only the target has.

    `now` is cut to the rows that both have, `whole` is the target's as it is.
    """

    now: WeightMatrix
    base: WeightMatrix
    whole: WeightMatrix
    grown: int = 0


@dataclass(frozen=True)
class Pairing:
    """Both sides, matched. `target` and `base` hold every matrix of each side in the names that the match goes by."""

    target: Matrices
    base: Matrices
    pairs: tuple[MatrixPair, ...]
    alone: tuple[WeightMatrix, ...]
    missing: tuple[WeightMatrix, ...]


def pair_matrices(now: Checkpoint, was: Checkpoint) -> Pairing:
    """Match the matrices of two checkpoints.

    What one side stores fused (gate and up, or q, k and v) and the other apart meets in its parts, where the family
    says how they are fused; an embedding that is tied on one side meets both matrices of the other.
    """
    mine = {matrix.id: matrix for matrix in now.matrices}
    theirs = {matrix.id: matrix for matrix in was.matrices}
    mine, theirs = _parted(mine, theirs, now), _parted(theirs, mine, was)
    twins = tied_twins(mine.values(), theirs)
    mine |= {alias: replace(mine[name], id=alias, aliases=()) for alias, name in twins.items()}
    pairs, alone, taken = [], [], set()
    for matrix, other in match_named(mine, theirs):
        if other is None:
            alone.append(matrix)
        else:
            taken.add(other.id)
            pairs.append(_pair(matrix, other))
    missing = tuple(matrix for name, matrix in theirs.items() if name not in taken)
    return Pairing(mine, theirs, tuple(pairs), tuple(alone), missing)


def _parted(mine: Matrices, theirs: Mapping[str, WeightMatrix], checkpoint: Checkpoint) -> Matrices:
    """`mine` with fused matrices that the other side lacks replaced by their parts, where it has all of them."""
    known = {*theirs, *(alias for matrix in theirs.values() for alias in matrix.aliases)}
    unmatched = {name for name in mine if name not in known}
    if not unmatched or not known - set(mine):
        return mine
    parts: dict[tuple[str, int | None, int | None], list[WeightMatrix]] = {}
    source = checkpoint.source.base if isinstance(checkpoint.source, JoinedSource) else checkpoint.source
    for part in open_parts(source, split_fused=True).matrices:
        parts.setdefault((part.tensor, part.index, part.expert), []).append(part)
    parted: Matrices = {}
    for name, matrix in mine.items():
        found = parts.get((matrix.tensor, matrix.index, matrix.expert), []) if name in unmatched else []
        if len(found) > 1 and all(part.id in known for part in found):
            # An adapter's update goes with the tensor, which the parts are read from.
            parted |= {part.id: replace(part, stored=matrix.stored) for part in found}
        else:
            parted[name] = matrix
    return parted


def _pair(matrix: WeightMatrix, other: WeightMatrix) -> MatrixPair:
    grown = matrix.shape[0] - other.shape[0]
    whole = matrix.rows is None and matrix.columns is None and matrix.index is None
    if grown <= 0 or matrix.shape[1] != other.shape[1] or not whole or other.role not in VOCABULARY:
        return MatrixPair(matrix, other, matrix)
    rows = other.shape[0]
    return MatrixPair(replace(matrix, shape=other.shape, rows=Stripes(0, rows, rows, rows)), other, matrix, grown)
