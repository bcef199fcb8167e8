"""Numbers that belong to runs of the *flattened* matrix: blocks that go on from one row into the next."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.packed import Tiles

Numbers = NDArray[np.float32]


def covering(first: int, last: int, block: int) -> tuple[int, int]:
    """The blocks [a, b) that hold the elements [first, last)."""
    return first // block, -(-last // block)


def flat_tiles(
    numbers: Numbers,
    block: int,
    first: int,
    shape: tuple[int, int],
    operation: Literal["multiply", "add"] = "multiply",
) -> Tiles:
    """The step of decoding rows whose first element is number `first` of the flattened matrix.

    Args:
        numbers: of the blocks that cover the rows, in order: `covering(first, first + rows · columns, block)`.
        block: elements of one block.
        first: flat position of the rows' first element.
        shape: rows and columns to decode.
        operation: what the numbers do.
    """
    rows, columns = shape
    if columns % block == 0:
        return Tiles(numbers.reshape(rows, -1), None, 1, block, operation=operation)
    if block % columns == 0 and first % columns == 0:
        height = block // columns
        return Tiles(numbers.reshape(-1, 1), None, height, columns, first // columns % height, operation=operation)
    each = np.repeat(numbers, block)[first % block :][: rows * columns]
    return Tiles(each.reshape(rows, columns), None, 1, 1, operation=operation)
