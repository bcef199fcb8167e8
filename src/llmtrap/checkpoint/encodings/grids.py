"""Scales and zero points that lie on a grid over a matrix: one a tensor, a row, a block, or a group of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import row_span
from llmtrap.checkpoint.encodings.plain import DTYPES
from llmtrap.checkpoint.names import printable
from llmtrap.errors import CheckpointError
from llmtrap.packed import Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import TensorEntry

Numbers = NDArray[np.float32]
Block = tuple[int, int]

SCALES: dict[str, np.dtype[np.generic]] = {
    **{name: DTYPES[name] for name in ("F64", "F32", "F16", "BF16", "F8_E4M3")},
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "U8": np.dtype(ml_dtypes.float8_e8m0fnu),  # the same exponents, from writers without that dtype
}
"""How scales are stored, by dtype."""

INTEGERS: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(code)
    for name, code in {"I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "U32": "<u4", "I64": "<i8"}.items()
}
"""How zero points, codes and indices are stored, by dtype."""

AGAIN = "Fetch the checkpoint again, or convert it to BF16"


@dataclass(frozen=True)
class Grid:
    """A tensor of numbers of which each belongs to a tile of `tile` rows × columns; `counts` of them down and across.

    `stored` is how they are read; `stacked` tells whether each slice of a stack has a grid of its own.
    """

    entry: TensorEntry
    counts: tuple[int, int]
    tile: Block
    stored: np.dtype[np.generic]
    stacked: bool

    def span(self, index: int | None, start: int, stop: int) -> ByteRange:
        """The bytes of the numbers that cover rows [start, stop)."""
        first, last = start // self.tile[0], -(-stop // self.tile[0])
        row_bytes = self.counts[1] * self.stored.itemsize
        return row_span(self.entry, row_bytes, self.counts[0], index if self.stacked else None, first, last)

    def numbers(self, source: Source, index: int | None, start: int, stop: int) -> Numbers:
        """Those numbers in float32: [tile rows, tile columns]."""
        return as_numbers(source.read(self.span(index, start, stop)), self.stored).reshape(-1, self.counts[1])

    def tiles(self, numbers: Numbers, start: int, operation: Literal["multiply", "add"] = "multiply") -> Tiles:
        """The numbers as a step of decoding a block that begins with row `start`."""
        height, width = self.tile
        return Tiles(numbers, None, height, width, start % height, operation=operation)

    def described(self, rows: int, columns: int) -> str:
        """What one number covers, in words."""
        if self.counts == (1, 1):
            return "scaled per tensor"
        if self.counts == (rows, 1):
            return "scaled per row"
        if self.counts == (1, columns):
            return "scaled per column"
        return f"groups of {self.tile[1]}" if self.tile[0] == 1 else f"blocks {self.tile[0]}x{self.tile[1]}"


def as_numbers(data: NDArray[np.uint8], stored: np.dtype[np.generic]) -> Numbers:
    """Stored numbers in float32; what is beyond its range is infinite, and found as such in the weights."""
    with np.errstate(over="ignore", invalid="ignore"):
        values: Numbers = data.view(stored).astype(np.float32)
    return values


def fit_grid(
    shape: tuple[int, ...],
    entry: TensorEntry,
    *,
    stated: Sequence[Block] = (),
    dtypes: dict[str, np.dtype[np.generic]] = SCALES,
) -> Grid | None:
    """The grid that a tensor of scales or zero points makes over a matrix or a stack; None where it does not fit.

    Args:
        shape: of the decoded weight.
        entry: the tensor of scales.
        stated: blocks (rows, columns) that the configuration speaks of; tried before any other.
        dtypes: what the numbers may be stored as.
    """
    if entry.dtype not in dtypes or entry.chunks:
        return None
    stack, (rows, columns) = shape[:-2], shape[-2:]
    own = entry.shape
    stacked = bool(stack)
    if entry.size == 1:
        counts, stacked = (1, 1), False
    elif own == (rows,) and not stack:
        counts = (rows, 1)
    elif own == stack:
        counts = (1, 1)
    elif len(own) == len(shape) and own[:-2] == stack:
        counts = (own[-2], own[-1])
    else:
        return None
    sizes = [
        (height, width)
        for block in [*stated, None]
        if (height := _tile_size(rows, counts[0], block and block[0])) is not None
        and (width := _tile_size(columns, counts[1], block and block[1])) is not None
    ]
    return Grid(entry, counts, sizes[0], dtypes[entry.dtype], stacked) if sizes else None


def _tile_size(size: int, count: int, stated: int | None) -> int | None:
    """How many of `size` rows or columns one of `count` scales covers; None where no such size gives that count.

    Several sizes do where the last tile is cut short. One that is stated is taken where it fits; else a power of two,
    then equal tiles: a file may mix block sizes, so the grid decides and not the configuration.
    """
    if count == 1:
        return size
    if stated is not None and stated > 0 and -(-size // stated) == count:
        return stated
    powers = [power for power in (1 << exponent for exponent in range(40)) if -(-size // power) == count]
    if powers:
        return powers[0]
    return size // count if count and size % count == 0 else None


def stated_blocks(config: dict[str, Any]) -> list[Block]:
    """The block sizes that the configuration of the quantisation speaks of, whichever modules they are for."""
    settings = section(config, "quantization_config")
    groups = settings.get("config_groups")
    places = [settings, *(groups.values() if isinstance(groups, dict) else [])]
    places = [place for place in places if isinstance(place, dict)]
    places += [place["weights"] for place in places if isinstance(place.get("weights"), dict)]
    found: list[Block] = []
    for place in places:
        for key in ("weight_block_size", "block_structure"):
            pair = place.get(key)
            if isinstance(pair, list) and len(pair) == 2 and all(type(size) is int and size > 0 for size in pair):
                found.append((pair[0], pair[1]))
        size = place.get("group_size")
        if type(size) is int and size > 0:
            found.append((1, size))
    return found


def misfit(weight: TensorEntry, scale: TensorEntry) -> CheckpointError:
    """The error for scales that cannot be this weight's."""
    problem = (
        f"scales of {scale.dtype} {list(scale.shape)} do not fit the weight "
        f"{printable(weight.name)} of {weight.dtype} {list(weight.shape)}"
    )
    return CheckpointError(problem, file=scale.span.file, tensor=printable(scale.name), remedy=AGAIN)


def broken(entry: TensorEntry, problem: str) -> CheckpointError:
    """The error for a tensor that contradicts its siblings or the configuration."""
    return CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=AGAIN)
