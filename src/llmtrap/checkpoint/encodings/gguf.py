"""The block types of GGUF: any run of rows is one range of bytes, since a row is a whole number of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from llmtrap.checkpoint.containers.gguf.types import BLOCK_TYPES, BlockType
from llmtrap.checkpoint.encodings.base import Encoding, Floats, StoredTensor, row_span
from llmtrap.checkpoint.encodings.coded import CodedTensor
from llmtrap.checkpoint.encodings.gguf_blocks import BY_LIBRARY, LAYOUTS
from llmtrap.errors import MissingExtraError
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry


@dataclass(frozen=True)
class _BlockTensor(StoredTensor):
    @property
    def _type(self) -> BlockType:
        return BLOCK_TYPES[self.encoding]

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The blocks of the rows: one range."""
        row_bytes = self.columns // self._type.entries * self._type.size
        return (row_span(self.parts[0], row_bytes, self.rows, index, start, stop),)


@dataclass(frozen=True)
class GgufTensor(_BlockTensor, CodedTensor):
    """A tensor whose blocks are codes with scales: all that can be taken apart here."""

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed:
        """The codes in the order of their numbers, with each block's scales and terms."""
        (span,) = self.spans(index, start, stop)
        rows = stop - start
        # A scale that is infinite or NaN makes numbers that are, and they are reported as such by who asked.
        with source.open(span) as data, np.errstate(over="ignore", invalid="ignore"):
            codes, table, steps = LAYOUTS[self.encoding](data.reshape(-1, self._type.size))
            # What was taken apart may still be a view of what is lent.
            codes = np.array(codes.reshape(rows, -1), copy=np.shares_memory(codes, data) or None)
            tiles = []
            for step in steps:
                numbers = np.array(step.numbers.reshape(rows, -1))
                width = self.columns // numbers.shape[1]
                tiles.append(Tiles(numbers, step.table, height=1, width=width, operation=step.operation))
        return Packed(codes, table, tuple(tiles))


@dataclass(frozen=True)
class CodeBookTensor(_BlockTensor):
    """A tensor whose blocks name entries of a code book, which the `gguf` package has."""

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Let the library decode the blocks."""
        from gguf import GGMLQuantizationType  # noqa: PLC0415  (an extra, and half a second to import)
        from gguf.quants import dequantize  # noqa: PLC0415

        (span,) = self.spans(index, start, stop)
        with source.open(span) as data, np.errstate(all="ignore"):
            values = dequantize(data.reshape(stop - start, -1), GGMLQuantizationType[self.encoding])
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=np.float32)
        out[...] = values.reshape(out.shape)
        return out


class GgufBlocks(Encoding):
    """Takes the tensors of a block type."""

    name = "GGUF"
    reads = (
        "Q4_0 to Q8_0, Q2_K to Q8_K, IQ4_NL, IQ4_XS, TQ2_0, MXFP4, NVFP4; IQ1 to IQ3 and TQ1_0 with the extra `gguf`"
    )

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:  # noqa: ARG002
        """Take them all; their header was checked for whole blocks.

        Raises:
            MissingExtraError: a type is decoded by the `gguf` package, which is not installed.
        """
        found: list[StoredTensor] = []
        for entry in [entry for entry in free.values() if entry.dtype in BLOCK_TYPES]:
            del free[entry.name]
            if entry.dtype in BY_LIBRARY and find_spec("gguf") is None:
                raise MissingExtraError.of(f"GGUF's {entry.dtype}", "gguf")
            kind = CodeBookTensor if entry.dtype in BY_LIBRARY else GgufTensor
            module = entry.name.removesuffix(".weight")
            found.append(kind(entry.name, module, entry.dtype, entry.shape, (entry,)))
        return found
