"""MXFP4 as GPT-OSS stores it: 4-bit E2M1 numbers in blocks of 32 along the input axis, with one power of two a block.

Layout (OCP Microscaling Formats v1.0, and the published GPT-OSS weights): `X_blocks` holds [..., rows, groups, 16]
bytes, the low nibble before the high one; `X_scales` holds [..., rows, groups] exponents with a bias of 127, of which
255 means NaN. The rows are outputs: this file order is [experts, out, in].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.base import (
    Encoding,
    Floats,
    StoredTensor,
    ValueCounts,
    merged,
    row_pieces,
    row_span,
)
from llmtrap.checkpoint.names import printable
from llmtrap.errors import CheckpointError
from llmtrap.packed import Packed, Tiles

if TYPE_CHECKING:
    from llmtrap.checkpoint.sources.base import ByteRange, Bytes, Source
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
PAIRS = np.stack([np.tile(E2M1, 16), np.repeat(E2M1, 16)], axis=1)
"""The two values of each byte: [256, 2]."""
SCALES = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
"""The factor of each scale byte."""
for _table in (PAIRS, SCALES):
    _table.flags.writeable = False

GROUP = 32
_SUFFIXES = (("_blocks", "_scales"), (".blocks", ".scales"))
_AGAIN = "Fetch the checkpoint again, or convert it to BF16"
_COUNTED = 1 << 16  # two-byte words counted at once: their copy as indices stays in cache
_MANY = 1 << 13  # groups from which on a table of all two-byte words pays
_HISTOGRAM_ENTRIES = 1 << 24
_PAIR_VALUES = PAIRS.view(np.uint64).ravel()


@dataclass(frozen=True)
class Mxfp4Tensor(StoredTensor):
    """A matrix or a stack of matrices in MXFP4; `parts` are blocks and scales, which may lie in two files."""

    def spans(self, index: int | None, start: int, stop: int) -> tuple[ByteRange, ...]:
        """The bytes of the rows in the blocks, then in the scales."""
        blocks, scales = self.parts
        groups = self.columns // GROUP
        return (
            row_span(blocks, groups * 16, self.rows, index, start, stop),
            row_span(scales, groups, self.rows, index, start, stop),
        )

    def decode(self, source: Source, index: int | None, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Look up both values of each byte at once, and multiply by the blocks' powers of two: exact in float32."""
        if out is None:
            out = np.empty((stop - start, self.columns), dtype=np.float32)
        of_blocks, of_scales = self.spans(index, start, stop)
        with source.open(of_blocks) as blocks, source.open(of_scales) as scales:
            pairs = out if out.dtype == np.float32 else np.empty(out.shape, dtype=np.float32)
            np.take(_PAIR_VALUES, blocks, out=pairs.reshape(-1).view(np.uint64), mode="clip")
            factors = SCALES.astype(out.dtype)[scales][:, None]
            with np.errstate(over="ignore"):  # 6 x 2^127 has no float32 (nor bfloat16): infinite, and so reported
                np.multiply(pairs.reshape(-1, GROUP), factors, out=out.reshape(-1, GROUP))
        return out

    def packed(self, source: Source, index: int | None, start: int, stop: int) -> Packed | None:
        """The packed bytes, each two numbers, and the scale bytes over groups of 32 columns."""
        of_blocks, of_scales = self.spans(index, start, stop)
        rows = stop - start
        scales = Tiles(source.read(of_scales).reshape(rows, -1), SCALES, height=1, width=GROUP)
        return Packed(source.read(of_blocks).reshape(rows, -1), PAIRS, (scales,))

    def histogram(self, source: Source, index: int | None) -> ValueCounts | None:
        """Count (scale, nibble) pairs over the packed bytes."""
        counts = np.zeros((256, 16), dtype=np.int64)
        for start, stop in row_pieces(self.rows, self.columns, _HISTOGRAM_ENTRIES):
            of_blocks, of_scales = self.spans(index, start, stop)
            with source.open(of_blocks) as blocks, source.open(of_scales) as scales:
                count_nibbles(blocks, scales, counts)
        with np.errstate(over="ignore"):
            values = (SCALES[:, None] * E2M1).astype(np.float64)
        return merged(values.ravel(), counts.ravel())


class Mxfp4(Encoding):
    """Finds pairs of uint8 blocks and scales."""

    name = "MXFP4"
    reads = "as GPT-OSS stores it"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:  # noqa: ARG002
        """Take every pair, wherever its two halves lie.

        Raises:
            CheckpointError: blocks without scales, scales without blocks, or shapes that do not fit.
        """
        found: list[StoredTensor] = []
        for entry in [entry for entry in free.values() if entry.dtype == "U8"]:
            for of_blocks, of_scales in _SUFFIXES:
                if entry.name.endswith(of_blocks) and _is_packed(entry, free, of_blocks, of_scales):
                    module = entry.name.removesuffix(of_blocks)
                    found.append(_pair(module, entry, free.get(module + of_scales)))
                    del free[module + of_blocks], free[module + of_scales]
                elif entry.name.endswith(of_scales) and entry.name.removesuffix(of_scales) + of_blocks not in free:
                    if entry.name not in free:
                        continue  # taken with its blocks already
                    problem = f"MXFP4 scales without {printable(entry.name.removesuffix(of_scales) + of_blocks)}"
                    raise _broken(entry, problem)
        return found


def _is_packed(entry: TensorEntry, free: dict[str, TensorEntry], of_blocks: str, of_scales: str) -> bool:
    """Whether these are blocks, and not bytes of another kind under such a name."""
    shaped = len(entry.shape) in (3, 4) and entry.shape[-1] == 16
    return shaped or entry.name.removesuffix(of_blocks) + of_scales in free


def _pair(module: str, blocks: TensorEntry, scales: TensorEntry | None) -> Mxfp4Tensor:
    if scales is None:
        raise _broken(blocks, "MXFP4 blocks without their scales")
    if len(blocks.shape) not in (3, 4) or blocks.shape[-1] != 16:
        raise _broken(
            blocks, f"MXFP4 blocks of shape {list(blocks.shape)}, which should be [experts, rows, groups, 16]"
        )
    if scales.shape != blocks.shape[:-1] or scales.dtype != "U8":
        problem = f"MXFP4 scales of {scales.dtype} {list(scales.shape)} for blocks {list(blocks.shape)}"
        raise _broken(scales, problem)
    shape = (*blocks.shape[:-2], blocks.shape[-2] * GROUP)
    return Mxfp4Tensor(blocks.name, module, Mxfp4.name, shape, (blocks, scales))


def _broken(entry: TensorEntry, problem: str) -> CheckpointError:
    return CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=_AGAIN)


def count_nibbles(blocks: Bytes, scales: Bytes, counts: NDArray[np.int64]) -> None:
    """Add to `counts` [256 scales, 16 nibbles] how often each nibble occurs under each scale.

    Groups are sorted by scale first; then the groups of one scale are counted two bytes at a time. Of what was measured
    this is the fastest: a joint histogram over scale and byte costs one count a byte, bit planes and popcounts more.

    Args:
        blocks: packed bytes, 16 a group.
        scales: one byte a group.
        counts: int64 [256, 16], added to.
    """
    per_scale = np.bincount(scales, minlength=256)
    groups = blocks.view("V16").take(np.argsort(scales, kind="stable"))
    stop = 0
    for scale in np.flatnonzero(per_scale):
        start, stop = stop, stop + int(per_scale[scale])
        pairs = _count_bytes(groups[start:stop]).reshape(16, 16)
        counts[scale] += pairs.sum(axis=0) + pairs.sum(axis=1)


def _count_bytes(groups: NDArray[np.void]) -> NDArray[np.intp]:
    """How often each byte occurs."""
    if groups.size < _MANY:
        return np.bincount(groups.view(np.uint8), minlength=256)
    words, of_words = groups.view(np.uint16), np.zeros(1 << 16, dtype=np.intp)
    for start in range(0, words.size, _COUNTED):
        of_words += np.bincount(words[start : start + _COUNTED], minlength=of_words.size)
    square = of_words.reshape(256, 256)
    of_bytes: NDArray[np.intp] = square.sum(axis=0) + square.sum(axis=1)
    return of_bytes
