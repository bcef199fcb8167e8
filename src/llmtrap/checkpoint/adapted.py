"""A base model with a LoRA adapter on it, as one checkpoint: base + ΔW, decoded block by block, never stored."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.adapted_matrices import AdaptedMatrices
from llmtrap.checkpoint.adapter_tensors import MERGE
from llmtrap.checkpoint.adapters import Adapter, LoraPair, read_factor, stored_whole
from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.dora import DoraTensor
from llmtrap.checkpoint.encodings.base import Floats, StoredTensor
from llmtrap.checkpoint.encodings.plain import DTYPES
from llmtrap.checkpoint.find import find_matrices
from llmtrap.checkpoint.matrices import Stripes, WeightMatrix
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, Source, SourceIdentity
from llmtrap.checkpoint.tensors import Catalogue, TensorEntry
from llmtrap.errors import CheckpointError, UnsupportedError

PLACE = "(adapter)/"
"""What the adapter's file is called beside the base's: no file of a checkpoint's own has such a name."""

_OTHER_BASE = "Give the base model that the adapter was trained on"


@dataclass(frozen=True)
class JoinedSource:
    """The files of a base and, under `(adapter)/`, those of an adapter."""

    base: Source
    adapter: Source

    @property
    def identity(self) -> SourceIdentity:
        """The adapter's: it is what is judged."""
        return self.adapter.identity

    def files(self) -> tuple[FileEntry, ...]:
        """All files of both."""
        return (*self.base.files(), *(replace(file, name=PLACE + file.name) for file in self.adapter.files()))

    def is_local(self, file: str) -> bool:
        """Whether this file is read from a disk and not over the network."""
        source, there = self._place(ByteRange(file, 0, 0))
        is_local = getattr(source, "is_local", None)
        return True if is_local is None else bool(is_local(there.file))

    def read(self, span: ByteRange) -> Bytes:
        """A copy of these bytes."""
        source, there = self._place(span)
        return source.read(there)

    def open(self, span: ByteRange) -> AbstractContextManager[Bytes]:
        """Lend these bytes."""
        source, there = self._place(span)
        return source.open(there)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Read into the caller's array, from the side that has the file."""
        source, place = self._place(span)
        source.read_into(place, out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """Pass the hint on, to each side once: a second call would replace the first."""
        placed = [self._place(span) for span in spans]
        for side in (self.base, self.adapter):
            side.prefetch([span for source, span in placed if source is side])

    def close(self) -> None:
        """Close both."""
        self.base.close()
        self.adapter.close()

    def _place(self, span: ByteRange) -> tuple[Source, ByteRange]:
        if span.file.startswith(PLACE):
            return self.adapter, ByteRange(span.file.removeprefix(PLACE), span.start, span.stop)
        return self.base, span


@dataclass(frozen=True)
class AdaptedTensor(StoredTensor):
    """A tensor of the base plus the update of one LoRA pair. `parts` are the base's and the two factors'.

    `fused_rows` or `fused_columns` are those of a module that the base stores fused with others, which stay.
    """

    base: StoredTensor
    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool
    fused_rows: Stripes | None = None
    fused_columns: Stripes | None = None

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """The base's."""
        return self.base.dtype

    @property
    def stored_bits(self) -> float:
        """Those of the base."""
        return self.base.stored_bits

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The base's rows and both factors."""
        return (*self.base.spans(index, start, stop), self.a.span, self.b.span)

    def shared_spans(self, index: int | None) -> tuple[ByteRange, ...]:
        """Those of the base."""
        return self.base.shared_spans(index)

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows of W + scale · B·A, or of W + (scale · B·A)ᵀ."""
        block = self.base.decode(source, index, start, stop, out)
        left, right = self.factors(source)
        # NaN in a factor is reported as NaN in the matrix, not as a warning.
        with np.errstate(invalid="ignore", over="ignore"):
            block += (left[start:stop] @ right).astype(block.dtype)
        return block

    def factors(self, source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """ΔW = left · right, in the orientation of the base."""
        a, b = read_factor(self.a, source), self.scale * read_factor(self.b, source)
        left, right = (a.T, b.T) if self.transposed else (b, a)
        if self.fused_rows is not None:
            left = _spread(left, self.fused_rows, self.rows)
        if self.fused_columns is not None:
            right = _spread(right.T, self.fused_columns, self.columns).T
        return left, right


def _spread(factor: NDArray[np.float64], places: Stripes, size: int) -> NDArray[np.float64]:
    """The rows of a factor at these places of a taller one, whose other rows are 0."""
    whole = np.zeros((size, factor.shape[1]))
    whole[places.indices()] = factor
    return whole


def adapt(base: Checkpoint, adapter: Adapter, source: Source) -> Checkpoint:
    """Put an adapter on its base.

    A module that the adapter saves whole replaces the base's, whatever its rows (a grown vocabulary); one that the base
    has not (a new head) is added. Where the base's head is its embedding, a head of the adapter's is a matrix apart.

    Args:
        base: the base model, opened.
        adapter: what to put on it.
        source: the adapter's files.

    Returns:
        A checkpoint of the base's matrices; those that the adapter does not touch are the very same objects.

    Raises:
        CheckpointError: a factor's module is not in the base, or does not fit its shape.
        UnsupportedError: a module that the base stores fused or split.
    """
    matrices = AdaptedMatrices(base)
    skipped = [*base.skipped, *adapter.skipped]
    added = {}
    for name, entry in adapter.saved.items():
        # An embedding under LoRA is saved with the adapter as its `base_layer`: replaced first, then updated.
        place = _placed(entry)
        module = name.removesuffix(".weight").removesuffix(".base_layer")
        matrix = matrices.find(module)
        if matrix is None:
            added[name] = replace(place, name=name)
        else:
            matrices.replace_tensor(matrix, partial(_replaced, place))
    new = find_matrices(Catalogue(source.identity, added, (), base.catalogue.config))
    matrices.add(new.matrices)
    skipped += new.skipped
    for pair in adapter.pairs:
        matrix, part = matrices.find(pair.module), None
        if matrix is None:
            matrix, part = matrices.find_fused(pair.module) or (None, None)
        if matrix is None:
            problem = "the base model has no such module"
            raise CheckpointError(problem, file=adapter.file.name, tensor=printable(pair.module), remedy=_OTHER_BASE)
        matrices.replace_one(_with_update(matrix, part or matrix, pair))
    placed = tuple(replace(file, name=PLACE + file.name) for file in adapter.files)
    catalogue = replace(
        base.catalogue, identity=source.identity, base=base.catalogue.identity,
        files=(*base.catalogue.files, *placed), skipped=(*base.catalogue.skipped, *adapter.skipped),
    )  # fmt: skip
    measured = {name for matrix in new.matrices for name in matrix.tensors}
    no_matrices = [entry for name, entry in added.items() if name not in measured]
    further = (*(_placed(entry) for entry in adapter.vectors), *no_matrices)
    joined = JoinedSource(base.source, source)
    return Checkpoint(joined, catalogue, matrices.all(), tuple(skipped), base.family, further, base.unknown, base.notes)


def _with_update(matrix: WeightMatrix, part: WeightMatrix, pair: LoraPair) -> WeightMatrix:
    """The matrix with the update of `part`, which is the matrix itself or one of several that are fused in it."""
    stored, shown = matrix.stored, printable(pair.module)
    # An expert that the adapter names by itself may be a slice of the base's stack, which is stored either way round.
    if matrix.index is not None and part.shape[0] == part.shape[1]:
        problem = "the base stores this square expert in a stack, and either way round is possible"
        raise UnsupportedError(problem, tensor=shown, remedy=MERGE)
    if pair.shape == part.shape:
        transposed = pair.transposed
    elif pair.shape == part.shape[::-1]:
        transposed = not pair.transposed
    else:
        problem = f"an update of {list(pair.shape)} for a matrix of {list(part.shape)}"
        raise CheckpointError(problem, tensor=shown, remedy=_OTHER_BASE)
    if pair.magnitude is not None and part.shape != (stored.rows, stored.columns):
        problem = "DoRA on a module that the base stores together with others is not read"
        raise UnsupportedError(problem, tensor=shown, remedy=MERGE)
    encoding = f"{stored.encoding} + LoRA (rank {pair.rank}, scale {pair.scale:.9g})"
    a, b = _placed(pair.a), _placed(pair.b)
    adapted = AdaptedTensor(
        stored.name, stored.module, encoding, stored.shape, (*stored.parts, a, b), stored, a, b, pair.scale, transposed,
        part.rows, part.columns,
    )  # fmt: skip
    if pair.magnitude is None:
        return replace(matrix, stored=adapted)
    magnitude = _placed(pair.magnitude)
    parts = (*adapted.parts, magnitude)
    encoding = encoding.replace(" + LoRA (", " + DoRA (")
    dora = DoraTensor(stored.name, stored.module, encoding, stored.shape, parts, adapted, magnitude, transposed)
    return replace(matrix, stored=dora)


def _replaced(entry: TensorEntry, stored: StoredTensor) -> StoredTensor:
    """The tensor that was saved whole, in the place of the base's: of as many columns, and any number of rows."""
    whole = stored_whole(entry, stored.name, stored.module)
    if entry.dtype in DTYPES:
        if entry.shape[1:] == stored.shape[1:]:
            return whole
        # A kernel is measured as a matrix of its outputs.
        if entry.shape == stored.parts[0].shape and (view := whole.reshaped(stored.shape)) is not None:
            return view
    problem = f"{entry.dtype} {list(entry.shape)} instead of {list(stored.shape)}"
    raise CheckpointError(problem, tensor=printable(entry.name), remedy=_OTHER_BASE)


def _placed(entry: TensorEntry) -> TensorEntry:
    return entry.placed(lambda file: PLACE + file)
