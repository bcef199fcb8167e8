"""Which matrices are byte for byte their base's: compared in chunks through both sources, at reading speed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np

from llmtrap.checkpoint import Catalogue, Source, WeightMatrix
from llmtrap.checkpoint.sources import ByteRange, Bytes
from llmtrap.errors import LlmtrapError
from llmtrap.report.document import Target

# Two chunks and the outcome of comparing them stay in the cache of one core.
CHUNK_BYTES = 1 << 20
_HASHED_BYTES = 1 << 24


def stored_alike(one: WeightMatrix, other: WeightMatrix) -> bool:
    """Whether equal bytes would mean equal matrices: one encoding, shape and selection on both sides."""
    return (
        one.encoding == other.encoding
        and one.stored.shape == other.stored.shape
        and one.shape == other.shape
        and (one.index, one.rows, one.columns) == (other.index, other.rows, other.columns)
        and type(one.stored) is type(other.stored)
        and [(part.dtype, part.shape) for part in one.stored.parts]
        == [(part.dtype, part.shape) for part in other.stored.parts]
    )


def unchanged_matrices(
    pairs: Iterable[tuple[WeightMatrix, WeightMatrix]],
    source: Source,
    base: Source,
    threads: int = 1,
    advance: Callable[[WeightMatrix], None] = lambda _: None,
) -> frozenset[str]:
    """Ids of the first of each pair whose bytes equal the second's.

    A matrix that cannot be read counts as changed: measuring it will say what is wrong with it.

    Args:
        pairs: matrix of the target, matrix of the base.
        source: of the target.
        base: source of the base.
        threads: pairs compared at once.
        advance: called with each matrix of the target that is done.
    """
    found: list[str] = []
    candidates = sorted((pair for pair in pairs if stored_alike(*pair)), key=lambda pair: _place(pair[0]))

    def same(pair: tuple[WeightMatrix, WeightMatrix]) -> tuple[WeightMatrix, bool]:
        try:
            return pair[0], equal_bytes(pair[0], source, pair[1], base)
        except LlmtrapError:
            return pair[0], False

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for matrix, equal in pool.map(same, candidates):
            if equal:
                found.append(matrix.id)
            advance(matrix)
    return frozenset(found)


def equal_bytes(one: WeightMatrix, source: Source, other: WeightMatrix, base: Source) -> bool:
    """Compare the stored bytes of two matrices that are stored alike; stops at the first chunk that differs.

    A part of a fused matrix is compared with what lies between its rows or columns: equal means equal, while a
    difference may be its neighbour's, and then the matrix is measured for nothing.
    """
    for mine, theirs in zip_longest(_chunks(one), _chunks(other)):
        if mine is None or theirs is None or mine.size != theirs.size:
            return False
        with source.open(mine) as a, base.open(theirs) as b:
            if not _same(a, b):
                return False
    return True


def _chunks(matrix: WeightMatrix) -> Iterator[ByteRange]:
    rows = matrix.rows
    first, last = (0, matrix.stored.rows) if rows is None else (rows.offset, rows.end)
    for span in matrix.stored.spans(matrix.index, first, last):
        for start in range(span.start, span.stop, CHUNK_BYTES):
            yield ByteRange(span.file, start, min(start + CHUNK_BYTES, span.stop))


def _same(a: Bytes, b: Bytes) -> bool:
    # Eight bytes at a time: the array of outcomes is then an eighth of what is compared.
    words = a.size - a.size % 8
    if a.ctypes.data % 8 == 0 and b.ctypes.data % 8 == 0 and a.flags.c_contiguous and b.flags.c_contiguous:
        if (a[:words].view(np.uint64) != b[:words].view(np.uint64)).any():
            return False
        return bool((a[words:] == b[words:]).all())
    return bool((a == b).all())


def _place(matrix: WeightMatrix) -> tuple[str, int]:
    part = matrix.stored.parts[0].span
    return part.file, part.start


def unchanged_by_digest(
    matrices: Iterable[WeightMatrix], catalogue: Catalogue, source: Source, base: Target
) -> frozenset[str]:
    """Ids of the matrices all of whose files have the same size and SHA-256 as a file of that name in a report.

    Local files are hashed, where a file of that name, size and a SHA-256 stands in the report; a hub's listing has the
    digests already.
    """
    known = {file.path: (file.bytes, file.digest) for file in base.files if (file.digest or "").startswith("sha256:")}
    same = set()
    for file in catalogue.files:
        size, digest = known.get(file.name, (-1, None))
        if digest is None or size != file.size:
            continue
        mine = file.digest if (file.digest or "").startswith("sha256:") else _sha256(source, file.name, file.size)
        if mine == digest:
            same.add(file.name)
    return frozenset(m.id for m in matrices if {part.span.file for part in m.stored.parts} <= same)


def _sha256(source: Source, name: str, size: int) -> str:
    total = hashlib.sha256()
    for start in range(0, size, _HASHED_BYTES):
        with source.open(ByteRange(name, start, min(start + _HASHED_BYTES, size))) as data:
            total.update(data.data)
    return f"sha256:{total.hexdigest()}"
