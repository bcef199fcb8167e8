"""From one weight matrix to its part of the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.audit.timing import READ, Stages, TimedBackend
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import MatrixError
from llmtrap.packed import Packed
from llmtrap.report import document
from llmtrap.rounding import ALPHA_BITS, rounding_words
from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse, summarise
from llmtrap.spectra.backends import Backend
from llmtrap.spectra.single_pass import FirstPass

Floats = NDArray[np.floating]

# Small enough that a block is still in the cache when its entries are summed and copied.
BLOCK_ENTRIES = 1 << 20


@dataclass(frozen=True)
class StoredReader:
    """A weight matrix and its bytes, as the spectra read it."""

    matrix: WeightMatrix
    source: Source
    stages: Stages

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    def blocks(self) -> Iterator[Floats]:
        """Decoded blocks of rows."""
        return self.stages.reading(self.matrix.blocks(self.source, BLOCK_ENTRIES))

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Counts of the stored codes, where the encoding has few of them."""
        with self.stages.of(READ):
            return self.matrix.histogram(self.source)

    def packed_blocks(self) -> Iterator[Packed] | None:
        """Blocks of rows as they are stored, in the pieces in which the source was told to fetch them."""
        with self.stages.of(READ):
            blocks = self.matrix.packed_blocks(self.source)
        return None if blocks is None else self.stages.reading(blocks)


def measure_matrix(
    matrix: WeightMatrix,
    source: Source,
    settings: AnalysisSettings,
    backend: Backend,
    stages: Stages | None = None,
    first: FirstPass | None = None,
) -> document.Matrix:
    """Read, decode and measure one matrix; `stages` learns where the time went.

    One that was read already, by blocks and to its end, comes with what that pass gave (`first`).

    Raises:
        LlmtrapError: its bytes cannot be read or decoded, or its numbers leave float64.
    """
    stages = stages or Stages()
    reader = StoredReader(matrix, source, stages)
    with stages.clock():
        analysis = analyse(reader, settings, matrix_id=matrix.id, backend=TimedBackend(backend, stages), first=first)
    return describe(matrix, analysis, stages.total)


def describe(matrix: WeightMatrix, analysis: MatrixAnalysis, seconds: float) -> document.Matrix:
    """What was found of a matrix, with its name; of one stored in few bits no α is claimed.

    Raises:
        MatrixError: the numbers leave the range of float64.
    """
    try:
        found = dict(summarise(analysis))
    except MatrixError as error:
        raise MatrixError(error.problem, tensor=matrix.tensor, remedy=error.remedy) from None
    if matrix.bits < ALPHA_BITS and (alpha := found["alpha"]) is not None and alpha.value is not None:
        reason = f"stored in {matrix.bits:.2g} bits a weight: α is that of the rounded matrix"
        found["alpha"] = alpha.model_copy(update={"band": None, "reliable": False, "reason": reason})
    return document.Matrix(
        id=matrix.id,
        tensor=matrix.tensor,
        part=matrix.part,
        layer=matrix.layer,
        role=matrix.role,
        expert=matrix.expert,
        shape=matrix.shape,
        encoding=matrix.encoding,
        bits=round(matrix.bits, 3),
        rounding=rounding_words(matrix.bits, matrix.encoding),
        aliases=matrix.aliases,
        seconds=round(seconds, 4),
        **found,
    )


def in_stored_tensor(found: document.Matrix, matrix: WeightMatrix) -> document.Matrix:
    """The same, with the places of entries in the stored tensor where the matrix is a part of a fused one."""
    if matrix.rows is None and matrix.columns is None:
        return found
    bad, traps = found.non_finite, found.traps
    if bad is not None:
        row, column = _place(matrix, bad.row, bad.column)
        bad = bad.model_copy(update={"row": row, "column": column})
    if traps is not None:
        moved = []
        for trap in traps.found:
            if trap.cause.row is not None and trap.cause.column is not None:
                row, column = _place(matrix, trap.cause.row, trap.cause.column)
                cause = trap.cause.model_copy(update={"row": row, "column": column})
                moved.append(trap.model_copy(update={"cause": cause}))
            else:
                moved.append(trap)
        traps = traps.model_copy(update={"found": tuple(moved)})
    return found.model_copy(update={"non_finite": bad, "traps": traps})


def _place(matrix: WeightMatrix, row: int, column: int) -> tuple[int, int]:
    """Where an entry of a part stands in the fused matrix."""
    if matrix.rows is not None:
        (row,) = matrix.rows.indices(row, row + 1).tolist()
    if matrix.columns is not None:
        (column,) = matrix.columns.indices(column, column + 1).tolist()
    return row, column
