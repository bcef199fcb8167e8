"""Which pairs of matrices are byte for byte the same: by the digests of their files, else compared at reading speed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from llmtrap.audit.digests import sha256_of
from llmtrap.checkpoint import Catalogue, Source, TensorEntry, WeightMatrix
from llmtrap.checkpoint.encodings.plain import PlainTensor
from llmtrap.checkpoint.sources import ByteRange, Bytes
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.errors import LlmtrapError
from llmtrap.report.document import Target

# Two chunks and the outcome of comparing them stay in the cache of one core. The first is small: a fine-tune changes
# most entries of a matrix, so that a difference is found at once, and the matrix will be read again to be measured.
CHUNK_BYTES = 1 << 20
FIRST_BYTES = 1 << 12

Pair = tuple[WeightMatrix, WeightMatrix]


def stored_alike(one: WeightMatrix, other: WeightMatrix) -> bool:
    """Whether equal bytes would mean equal matrices: one encoding and shape, and rows that lie alike on both sides."""
    if one.encoding != other.encoding or one.shape != other.shape or type(one.stored) is not type(other.stored):
        return False
    if _layouts(one) == _layouts(other):
        return True
    # A number an element, row after row: what lies around the rows does not matter.
    return all(
        type(matrix.stored) is PlainTensor
        and matrix.columns is None
        and (matrix.rows is None or matrix.rows.stride == matrix.rows.block)
        and not any(part.chunks for part in matrix.stored.parts)
        for matrix in (one, other)
    )


def _layouts(matrix: WeightMatrix) -> object:
    parts = [
        (part.dtype, part.shape, [(chunk.offsets, chunk.shape, chunk.strides) for chunk in part.chunks])
        for part in matrix.stored.parts
    ]
    return matrix.stored.shape, matrix.index, matrix.rows, matrix.columns, parts


def same_files(mine: Iterable[FileEntry], theirs: Iterable[FileEntry]) -> frozenset[tuple[str, str]]:
    """Pairs of files, by name, that have the same size and the same SHA-256 in both listings; nothing is read."""
    known: dict[tuple[str, int], list[str]] = {}
    for file in theirs:
        if _is_sha256(file.digest):
            known.setdefault((str(file.digest), file.size), []).append(file.name)
    return frozenset(
        (file.name, other) for file in mine if file.digest for other in known.get((file.digest, file.size), ())
    )


def unchanged_matrices(
    pairs: Iterable[Pair],
    source: Source,
    base: Source,
    threads: int = 1,
    advance: Callable[[WeightMatrix], None] = lambda _: None,
    same: frozenset[tuple[str, str]] = frozenset(),
) -> frozenset[str]:
    """Ids of the first of each pair whose bytes equal the second's.

    A matrix that cannot be read counts as changed: measuring it will say what is wrong with it.

    Args:
        pairs: matrix of the target, matrix of the base.
        source: of the target.
        base: source of the base.
        threads: pairs compared at once.
        advance: called with each matrix of the target that is done.
        same: pairs of files known to be the same; what lies at the same place in such files is not read.
    """
    found: set[str] = set()
    candidates = []
    for pair in pairs:
        if not stored_alike(*pair):
            continue
        if _at_the_same_place(*pair, same):
            found.add(pair[0].id)
            advance(pair[0])
        else:
            candidates.append(pair)
    candidates.sort(key=lambda pair: _place(pair[0]))

    def equal(batch: Sequence[_Placed]) -> list[bool]:
        """Whether each is equal: asked of all at once where they lie side by side, else of one after the other."""
        if len(batch) > 1:
            mine, theirs = (_joined(side) for side in zip(*((one.spans, one.base_spans) for one in batch), strict=True))
            if _equal(mine, source, theirs, base):
                return [True] * len(batch)
        return [_equal(one.spans, source, one.base_spans, base) for one in batch]

    batches = list(_batches(_Placed(pair[0], tuple(_spans(pair[0])), tuple(_spans(pair[1]))) for pair in candidates))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for batch, equals in zip(batches, pool.map(equal, batches), strict=True):
            for one, is_equal in zip(batch, equals, strict=True):
                if is_equal:
                    found.add(one.matrix.id)
                advance(one.matrix)
    return frozenset(found)


@dataclass(frozen=True)
class _Placed:
    """A matrix of the target, the bytes of it, and those of its pair in the base."""

    matrix: WeightMatrix
    spans: tuple[ByteRange, ...]
    base_spans: tuple[ByteRange, ...]


def _batches(pairs: Iterable[_Placed]) -> Iterator[list[_Placed]]:
    """Runs of small matrices that follow one another on both sides, as long as one chunk; others alone."""
    batch: list[_Placed] = []
    size = 0
    for one in pairs:
        more = sum(span.size for span in one.spans)
        if batch and not (
            size + more <= CHUNK_BYTES
            and _follow(batch[-1].spans, one.spans)
            and _follow(batch[-1].base_spans, one.base_spans)
        ):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += more
    if batch:
        yield batch


def _follow(before: tuple[ByteRange, ...], after: tuple[ByteRange, ...]) -> bool:
    """Whether the second's bytes begin where the first's end, each in one range."""
    return len(before) == len(after) == 1 and before[0].file == after[0].file and before[0].stop == after[0].start


def _joined(spans: Sequence[tuple[ByteRange, ...]]) -> tuple[ByteRange, ...]:
    """The range from the first to the last of ranges that follow one another."""
    first, last = spans[0][0], spans[-1][0]
    return (ByteRange(first.file, first.start, last.stop),)


def _equal(mine: Iterable[ByteRange], source: Source, theirs: Iterable[ByteRange], base: Source) -> bool:
    """Whether the bytes are equal; what cannot be read is not."""
    try:
        return _equal_spans(mine, source, theirs, base)
    except LlmtrapError:
        return False


def equal_tensors(one: TensorEntry, source: Source, other: TensorEntry, base: Source) -> bool:
    """Whether two tensors of one type and shape hold the same bytes; stops at the first chunk that differs."""
    return _equal_spans(one.spans, source, other.spans, base)


def equal_files(file: FileEntry, source: Source, other: FileEntry, base: Source) -> bool:
    """Whether two whole files hold the same bytes; stops at the first chunk that differs.

    Raises:
        LlmtrapError: one of them cannot be read.
    """
    mine, theirs = (ByteRange(one.name, 0, one.size) for one in (file, other))
    return _equal_spans((mine,), source, (theirs,), base)


def content_digest(matrix: WeightMatrix, source: Source) -> str:
    """A digest of a matrix's stored bytes and of how they are stored: where two are equal, so are the matrices.

    For a comparison with a checkpoint that is gone by then. As with `equal_bytes`, a part of a fused matrix is taken
    with what lies between its rows or columns.

    Raises:
        CheckpointError: the bytes cannot be read.
    """
    total = hashlib.blake2b(digest_size=20)
    total.update(ascii((type(matrix.stored).__name__, matrix.encoding, matrix.shape, _layouts(matrix))).encode())
    for chunk in _chunks(_spans(matrix)):
        with source.open(chunk) as data:
            total.update(data.data)
    return f"blake2b:{total.hexdigest()}"


def _equal_spans(mine: Iterable[ByteRange], source: Source, theirs: Iterable[ByteRange], base: Source) -> bool:
    for here, there in zip_longest(_chunks(mine), _chunks(theirs)):
        if here is None or there is None or here.size != there.size:
            return False
        with source.open(here) as a, base.open(there) as b:
            if not _same(a, b):
                return False
    return True


def _spans(matrix: WeightMatrix) -> Iterator[ByteRange]:
    """The bytes of a matrix; of a part of a fused one also what lies between its rows or columns.

    Equal means equal; a difference may be the neighbour's, and then the matrix is measured for nothing.
    """
    rows = matrix.rows
    first, last = (0, matrix.stored.rows) if rows is None else (rows.offset, rows.end)
    return iter(matrix.stored.spans(matrix.index, first, last))


def _chunks(spans: Iterable[ByteRange]) -> Iterator[ByteRange]:
    size = FIRST_BYTES
    for span in spans:
        start = span.start
        while start < span.stop:
            yield ByteRange(span.file, start, min(start + size, span.stop))
            start += size
            size = min(4 * size, CHUNK_BYTES)


def _same(a: Bytes, b: Bytes) -> bool:
    # Eight bytes at a time: the array of outcomes is then an eighth of what is compared.
    words = a.size - a.size % 8
    if a.ctypes.data % 8 == 0 and b.ctypes.data % 8 == 0 and a.flags.c_contiguous and b.flags.c_contiguous:
        if (a[:words].view(np.uint64) != b[:words].view(np.uint64)).any():
            return False
        return bool((a[words:] == b[words:]).all())
    return bool((a == b).all())


def _at_the_same_place(one: WeightMatrix, other: WeightMatrix, same: frozenset[tuple[str, str]]) -> bool:
    if not same or _layouts(one) != _layouts(other):
        return False
    return all(
        (here.file, there.file) in same and (here.start, here.stop) == (there.start, there.stop)
        for mine, theirs in zip(one.stored.parts, other.stored.parts, strict=True)
        for here, there in zip(mine.spans, theirs.spans, strict=True)
    )


def _place(matrix: WeightMatrix) -> tuple[str, int]:
    part = matrix.stored.parts[0].span
    return part.file, part.start


def _is_sha256(digest: str | None) -> bool:
    return (digest or "").startswith("sha256:")


def unchanged_by_digest(
    matrices: Iterable[WeightMatrix], catalogue: Catalogue, source: Source, base: Target
) -> frozenset[str]:
    """Ids of the matrices all of whose files have the same size and SHA-256 as a file of that name in a report.

    Local files are hashed, where a file of that name, size and a SHA-256 stands in the report; a hub's listing has the
    digests already.
    """
    known = {file.path: (file.bytes, file.digest) for file in base.files if _is_sha256(file.digest)}
    same = set()
    for file in catalogue.files:
        size, digest = known.get(file.name, (-1, None))
        if digest is None or size != file.size:
            continue
        mine = file.digest if _is_sha256(file.digest) else sha256_of(source, file.name, file.size)
        if mine == digest:
            same.add(file.name)
    return frozenset(m.id for m in matrices if {span.file for part in m.stored.parts for span in part.spans} <= same)
