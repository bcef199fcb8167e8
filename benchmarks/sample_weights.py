"""A bank of realistic matrices in their stored form, and cheap variants of them that no other matrix equals.

Drawing 1,536 experts afresh would take an hour. A variant permutes a base's rows and its groups of 32 columns, flips
the signs of rows and columns, and doubles a share of the rows: all on packed bytes, at the speed of memory. The first
two leave the spectrum alone, the last makes each its own; none makes one entry or the mean stand out.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.demo import mxfp4, planting

ALPHAS = (2.4, 3.3, 4.6)
ENTRY_SCALE = 0.03
ROW_SPREAD, COLUMN_SPREAD = 0.2, 0.3  # log-normal: what spreads the scales of the blocks over several powers of two
MOST_DOUBLED = 0.3
GROUP = mxfp4.BLOCK

Packed = NDArray[np.uint8]
Halves = NDArray[np.uint16]


def base_matrix(rng: np.random.Generator, rows: int, columns: int, alpha: float) -> NDArray[np.float32]:
    """A trained-looking matrix whose rows and columns differ in size, as real ones' do."""
    matrix = planting.trained_like(rng, rows, columns, alpha, ENTRY_SCALE)
    matrix *= np.exp(ROW_SPREAD * rng.standard_normal((rows, 1), dtype=np.float32))
    matrix *= np.exp(COLUMN_SPREAD * rng.standard_normal(columns, dtype=np.float32))
    return matrix


@dataclass(frozen=True)
class Moves:
    """One variant: which row and group goes where, and whose sign or size changes."""

    rows: NDArray[np.intp]
    groups: NDArray[np.intp]
    row_signs: NDArray[np.bool_]
    column_signs: NDArray[np.bool_]
    doubled: NDArray[np.intp]

    @classmethod
    def draw(cls, rng: np.random.Generator, rows: int, columns: int, most_doubled: float = MOST_DOUBLED) -> Moves:
        """Random moves for a [rows, columns] matrix."""
        share = rng.uniform(0, most_doubled)
        return cls(
            rows=rng.permutation(rows),
            groups=rng.permutation(columns // GROUP),
            row_signs=rng.random(rows) < 0.5,
            column_signs=rng.random(columns) < 0.5,
            doubled=np.flatnonzero(rng.random(rows) < share),
        )


class Mxfp4Base:
    """A base in MXFP4."""

    def __init__(self, matrix: NDArray[np.float32]):
        self.shape = matrix.shape
        self.blocks, self.scales = mxfp4.quantise(matrix)

    def variant(self, moves: Moves) -> tuple[Packed, Packed]:
        """Blocks [rows, groups, 16] and scales [rows, groups] of one variant."""
        blocks = self.blocks[moves.rows].take(moves.groups, axis=1)
        even, odd = moves.column_signs[0::2], moves.column_signs[1::2]
        flips = (even * np.uint8(0x08)) | (odd * np.uint8(0x80))
        blocks ^= flips.reshape(-1, GROUP // 2)
        blocks ^= (moves.row_signs * np.uint8(0x88))[:, None, None]
        scales = self.scales[moves.rows].take(moves.groups, axis=1)
        scales[moves.doubled] += 1
        return blocks, scales


class Bf16Base:
    """A base in BF16, as 16-bit patterns."""

    def __init__(self, matrix: NDArray[np.float32]):
        self.shape = matrix.shape
        self.bits: Halves = matrix.astype(ml_dtypes.bfloat16).view(np.uint16)

    def variant(self, moves: Moves) -> Halves:
        """Bit patterns [rows, columns] of one variant."""
        rows, columns = self.shape
        bits = self.bits[moves.rows].reshape(rows, -1, GROUP).take(moves.groups, axis=1).reshape(rows, columns)
        bits ^= moves.column_signs * np.uint16(0x8000)
        bits ^= (moves.row_signs * np.uint16(0x8000))[:, None]
        chosen = bits[moves.doubled]
        bits[moves.doubled] = chosen + np.uint16(0x80) * ((chosen & 0x7FFF) != 0)  # one more in the exponent
        return bits


def floats(bits: Halves) -> NDArray[np.float32]:
    """BF16 bit patterns as float32."""
    values: NDArray[np.float32] = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    return values
