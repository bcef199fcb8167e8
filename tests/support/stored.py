"""A matrix as a file would store it, for devices to decode, and what two backends must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from llmtrap.packed import Packed
from llmtrap.spectra import MatrixAnalysis

Floats = NDArray[np.floating]
# What docs/definitions.md promises of two backends.
ALPHA_RELATIVE, TOP_Z = 1e-4, 0.05


@dataclass
class Stored:
    """A matrix of 16-bit codes over its own alphabet, in blocks of rows; `host_reads` and `reads` count the passes."""

    codes: NDArray[np.uint16]
    table: NDArray[np.float32]
    rows: int = 64
    reads: int = 0
    host_reads: int = 0

    @classmethod
    def of(cls, matrix: Floats, rows: int = 64) -> Stored:
        """Entries rounded to the nearest of 60000 levels, the extremes kept."""
        levels = np.linspace(matrix.min(), matrix.max(), 60_000).astype(np.float32)
        table = np.zeros((65536, 1), dtype=np.float32)
        table[: levels.size, 0] = levels
        step = float(levels[-1] - levels[0]) / (levels.size - 1)
        codes = np.rint((matrix - levels[0]) / step).clip(0, levels.size - 1).astype(np.uint16)
        return cls(codes, table, rows)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.codes.shape[0], self.codes.shape[1])

    def decoded(self) -> Floats:
        return self.table[self.codes, 0]

    def blocks(self) -> Iterator[Floats]:
        self.host_reads += 1
        for start in range(0, self.shape[0], self.rows):
            yield self.table[self.codes[start : start + self.rows], 0]

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        return None

    def packed_blocks(self) -> Iterator[Packed]:
        self.reads += 1
        for start in range(0, self.shape[0], self.rows):
            yield Packed(self.codes[start : start + self.rows].view(np.int16), self.table)


def assert_agrees(found: MatrixAnalysis, plain: MatrixAnalysis) -> None:
    """What docs/definitions.md promises of two backends."""
    assert found.moments is not None and plain.moments is not None  # noqa: PT018 - narrows both
    assert (found.moments.minimum, found.moments.maximum) == (plain.moments.minimum, plain.moments.maximum)
    assert found.moments.variance == pytest.approx(plain.moments.variance, rel=1e-5)
    assert found.moments.kurtosis == pytest.approx(plain.moments.kurtosis, rel=1e-4)
    if plain.esd is not None:
        assert found.esd is not None
        assert found.esd.precision == plain.esd.precision
        assert found.esd.fit is not None and plain.esd.fit is not None  # noqa: PT018
        assert found.esd.fit.alpha == pytest.approx(plain.esd.fit.alpha, rel=ALPHA_RELATIVE)
    assert found.traps is not None and plain.traps is not None  # noqa: PT018
    assert found.traps.method == plain.traps.method
    assert [(c.count, c.centred) for c in found.traps.counts] == [(c.count, c.centred) for c in plain.traps.counts]
    assert [c.top_z for c in found.traps.counts] == pytest.approx(
        [c.top_z for c in plain.traps.counts], abs=TOP_Z, rel=1e-5
    )
    kinds = [(t.cause.kind, t.cause.row, t.cause.column, t.cause.value) for t in plain.traps.found]
    assert [(t.cause.kind, t.cause.row, t.cause.column, t.cause.value) for t in found.traps.found] == kinds
