"""Stored codes to numbers on a device, through the standard's own functions alone, and numbers back to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from llmtrap.packed import Array, Packed, Tiles
from llmtrap.spectra.backends.base import PowerSums
from llmtrap.spectra.backends.current_device import on_its_device


class ArrayApiDecoder:
    """Sends packed blocks to one device, decodes them there, and sums what was decoded.

    Tables that cannot be written to are constants of their encoding: they are sent once.
    """

    def __init__(self, namespace: Any, device: Any = None):
        self._xp = namespace
        self._device = device
        self._tables: dict[int, tuple[NDArray[np.float32], Array]] = {}

    @on_its_device
    def send(self, packed: Packed) -> Packed:
        """The same block with its arrays on the device, as they are stored."""
        tiles = tuple(self._sent_tiles(step) for step in packed.tiles)
        rows = None if packed.rows is None else self._sent(packed.rows)
        columns = None if packed.columns is None else self._sent(packed.columns)
        return Packed(self._sent(packed.codes), self._table(packed.table), tiles, rows, columns)

    @on_its_device
    def decode(self, sent: Packed) -> Array:
        """The numbers of a block that was sent, float32 [rows, columns]: bit for bit those that the host decodes."""
        xp = self._xp
        # NumPy warns where 6·2¹²⁷ overflows, and the host's own decoding does not: infinity is found and reported.
        with np.errstate(over="ignore", invalid="ignore"):
            block = xp.reshape(self._looked_up(sent.table, sent.codes), sent.shape)
            for tiles in sent.tiles:
                numbers = self._factors(tiles, sent.shape)
                block = block * numbers if tiles.operation == "multiply" else block + numbers
        if sent.rows is not None:
            block = xp.take(block, sent.rows, axis=0)
        return block if sent.columns is None else xp.take(block, sent.columns, axis=1)

    @on_its_device
    def join(self, blocks: Sequence[Array]) -> Array:
        """Blocks of rows one under the other."""
        return blocks[0] if len(blocks) == 1 else self._xp.concat(list(blocks), axis=0)

    @on_its_device
    def finite(self, block: Array) -> bool:
        """Whether every number is one."""
        return bool(self._xp.all(self._xp.isfinite(block)))

    @on_its_device
    def power_sums(self, block: Array, shift: float, scale: float) -> PowerSums:
        """Extremes of the finite entries w, and sums of the powers of x = (w − shift)·scale, all in float64."""
        xp = self._xp
        x = (xp.astype(block, xp.float64) - shift) * scale
        square = x * x
        sums = [xp.sum(power) for power in (x, square, square * x, square * square)]
        extremes = [xp.astype(edge, xp.float64) for edge in (xp.min(block), xp.max(block))]
        # One copy to the host for all: each would wait for the device.
        low, high, *powers = to_host(xp.stack(extremes + sums)).tolist()
        first, second, third, fourth = powers
        return PowerSums(int(np.prod(block.shape)), low, high, (first, second, third, fourth))

    @on_its_device
    def distinct(self, block: Array, most: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Sorted and counted on the device: the host gets a value once."""
        values, counts = self._xp.unique_counts(self._xp.reshape(block, (-1,)))
        if int(values.shape[0]) > most:
            return None
        return np.asarray(to_host(values), dtype=np.float32), np.asarray(to_host(counts), dtype=np.int64)

    @on_its_device
    def to_host(self, block: Array) -> NDArray[np.floating]:
        """A copy on the host, in the same float width."""
        return to_host(block)

    def _sent(self, array: NDArray[np.generic]) -> Array:
        return self._xp.asarray(np.ascontiguousarray(array), device=self._device)

    def _sent_tiles(self, tiles: Tiles) -> Tiles:
        table = None if tiles.table is None else self._table(tiles.table)
        columns = None if tiles.columns is None else self._sent(tiles.columns)
        return replace(tiles, factors=self._sent(tiles.factors), table=table, columns=columns)

    def _table(self, table: NDArray[np.float32]) -> Array:
        if table.flags.writeable:
            return self._sent(table)
        if id(table) not in self._tables:
            # PyTorch would share a host array's memory, and warns where that cannot be written to.
            self._tables[id(table)] = (table, self._sent(table.copy()))
        return self._tables[id(table)][1]

    def _looked_up(self, table: Array, codes: Array) -> Array:
        """Rows of the table, one a code, in the order of the codes."""
        xp = self._xp
        index = xp.reshape(xp.astype(codes, xp.int32), (-1,))
        return xp.take(table, index & 0xFFFF if codes.dtype == xp.int16 else index, axis=0)

    def _factors(self, tiles: Tiles, shape: tuple[int, int]) -> Array:
        """The factor (or the term) of every entry."""
        xp, (rows, columns) = self._xp, shape
        factors = tiles.factors
        if tiles.table is not None:
            factors = xp.reshape(self._looked_up(tiles.table, factors), factors.shape)
        down = (xp.arange(rows, device=self._device) + tiles.above) // tiles.height
        across = tiles.columns
        if across is None:
            across = xp.arange(columns, device=self._device) // tiles.width
        return xp.take(xp.take(factors, down, axis=0), across, axis=1)


def to_host(array: Array) -> NDArray[np.floating]:
    """A NumPy array of what lies on a device."""
    if array_api_compat.is_cupy_array(array):
        array = array.get()
    elif array_api_compat.is_torch_array(array):
        array = array.cpu().numpy()
    elif not isinstance(array, np.ndarray):
        array = np.from_dlpack(array)
    return np.asarray(array)
