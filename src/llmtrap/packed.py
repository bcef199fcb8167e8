"""Numbers as a file stores them, as plain data that any array library can decode.

What the checkpoint package reads and the spectra compute meet here: an encoding says which codes there are and what
they stand for, and a backend looks them up on its device, so that codes travel there and not floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Array = Any  # a NumPy array as it was read, or the same on a device


@dataclass(frozen=True)
class Tiles:
    """Numbers on a grid of tiles over a matrix: factors of its entries, or terms that are added to them.

    Row i of a block belongs to tile row (i + above) // height, column j to tile column j // width.

    Attributes:
        factors: [tile rows, tile columns], float32, or uint8 codes of `table`.
        table: float32 [256], what the codes stand for; None where the factors are numbers already.
        height: rows of a tile.
        width: columns of a tile.
        above: rows of the first tile that lie above the block.
        columns: the tile column of every column, int64, where they are not runs of `width`; else None.
        operation: what is done with the tile's number to each of its entries, in float32.
    """

    factors: Array
    table: Array | None
    height: int
    width: int
    above: int = 0
    columns: Array | None = None
    operation: Literal["multiply", "add"] = "multiply"

    @property
    def size(self) -> int:
        """Bytes of the numbers, and of the columns' places."""
        return int(self.factors.nbytes) + (0 if self.columns is None else int(self.columns.nbytes))


@dataclass(frozen=True)
class Packed:
    """A block of rows as stored: each code stands for the float32 numbers in its row of `table`, one after the other.

    Attributes:
        codes: uint8 or int16 [rows, codes a row]; a 16-bit code is read as unsigned.
        table: float32 [256 or 65536, numbers a code].
        tiles: what the numbers are multiplied by and what is added to them, each step rounded to float32, in order.
        rows: which of the decoded rows are the matrix's, int64; None for all.
        columns: the same for columns.
    """

    codes: Array
    table: Array
    tiles: tuple[Tiles, ...] = ()
    rows: Array | None = None
    columns: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns when decoded, before any are picked out."""
        return int(self.codes.shape[0]), int(self.codes.shape[1] * self.table.shape[1])

    @property
    def size(self) -> int:
        """Bytes of the codes, the factors and the terms."""
        return int(self.codes.nbytes) + sum(tiles.size for tiles in self.tiles)
