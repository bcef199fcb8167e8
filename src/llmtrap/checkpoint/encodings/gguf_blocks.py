"""How each GGUF block type turns into codes, a table, and numbers to multiply by and to add (ggml-quants.c).

A layout takes blocks [n, bytes] apart: into codes in the order of the numbers, one or two numbers a byte, and into
steps [n, tiles] that hold for equal runs of a block's numbers. d and m are 16-bit floats; all arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.encodings.coded import Floats32, integers, pairs_of
from llmtrap.checkpoint.encodings.mxfp4 import E2M1, SCALES

Bytes = NDArray[np.uint8]

_EIGHT = np.arange(8, dtype=np.uint8)[:, None]

_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = tuple(float(value) or 0.0 for value in E2M1)  # ggml has one zero


@dataclass(frozen=True)
class Step:
    """Numbers [n, tiles] for equal runs of each block: factors, or terms; codes of `table` where there is one."""

    numbers: NDArray[np.generic]
    operation: Literal["multiply", "add"] = "multiply"
    table: Floats32 | None = None


Taken = tuple[Bytes, Floats32, tuple[Step, ...]]
"""Codes [n, …], what they stand for, and what is done with it."""


def _half(blocks: Bytes, at: int) -> Floats32:
    """The 16-bit float at one place of every block: [n, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _pairs(packed: Bytes, run: int) -> Bytes:
    """Bytes of two neighbours each, out of runs whose low nibbles come first and then their high ones."""
    words = np.ascontiguousarray(packed).view("<u2").reshape(len(packed), -1, run // 2)
    out = np.empty((len(packed), words.shape[1], 2, run // 2), dtype=np.uint8)
    out[:, :, 0] = (words & 0x0F) | (words >> 4 & 0xF0)
    out[:, :, 1] = (words >> 4 & 0x0F) | (words >> 8 & 0xF0)
    return out.reshape(len(packed), -1)


def _fields(packed: Bytes, run: int, bits: int) -> Bytes:
    """Codes of 2 or 4 bits, one a byte: of each run the lowest bits come first, then the next ones: [n, runs, run]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields: Bytes = packed.reshape(len(packed), -1, 1, run) >> shifts & np.uint8((1 << bits) - 1)
    return fields.reshape(len(packed), -1, run)


def _q4_0(blocks: Bytes) -> Taken:
    return _pairs(blocks[:, 2:], 16), pairs_of(tuple(range(-8, 8))), (Step(_half(blocks, 0)),)


def _q4_1(blocks: Bytes) -> Taken:
    steps = Step(_half(blocks, 0)), Step(_half(blocks, 2), "add")
    return _pairs(blocks[:, 4:], 16), pairs_of(tuple(range(16))), steps


def _five_bits(high: Bytes, low: Bytes) -> Bytes:
    fifth = np.unpackbits(np.ascontiguousarray(high), axis=1, bitorder="little")
    return _fields(low, 16, 4).reshape(len(low), 32) | fifth << np.uint8(4)


def _q5_0(blocks: Bytes) -> Taken:
    return _five_bits(blocks[:, 2:6], blocks[:, 6:]), integers(16), (Step(_half(blocks, 0)),)


def _q5_1(blocks: Bytes) -> Taken:
    steps = Step(_half(blocks, 0)), Step(_half(blocks, 2), "add")
    return _five_bits(blocks[:, 4:8], blocks[:, 8:]), integers(0), steps


def _q8_0(blocks: Bytes) -> Taken:
    return blocks[:, 2:], integers(signed=True), (Step(_half(blocks, 0)),)


def _q2_k(blocks: Bytes) -> Taken:
    scales = blocks[:, :16]
    factors = _half(blocks, 80) * (scales & 15).astype(np.float32)
    terms = -(_half(blocks, 82) * (scales >> 4).astype(np.float32))
    return _fields(blocks[:, 16:80], 32, 2), integers(0), (Step(factors), Step(terms, "add"))


def _q3_k(blocks: Bytes) -> Taken:
    third = blocks[:, None, :32] >> _EIGHT & np.uint8(1)
    codes = _fields(blocks[:, 32:96], 32, 2) | third << np.uint8(2)
    low = _fields(blocks[:, 96:104], 8, 4).reshape(-1, 16)
    high = _fields(blocks[:, 104:108], 4, 2).reshape(-1, 16)
    scales = (low | high << 4).astype(np.float32) - 32
    return codes, integers(4), (Step(_half(blocks, 108) * scales),)


def _scales_and_minima(blocks: Bytes) -> tuple[Step, Step]:
    """Factors and terms of eight runs, out of twelve bytes of 6-bit numbers after d and dmin (Q4_K and Q5_K)."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 0x3F, (third & 0x0F) | (first >> 2 & 0x30)], axis=1)
    minima = np.concatenate([second & 0x3F, (third >> 4) | (second >> 2 & 0x30)], axis=1)
    terms = -(_half(blocks, 2) * minima.astype(np.float32))
    return Step(_half(blocks, 0) * scales.astype(np.float32)), Step(terms, "add")


def _q4_k(blocks: Bytes) -> Taken:
    return _pairs(blocks[:, 16:], 32), pairs_of(tuple(range(16))), _scales_and_minima(blocks)


def _q5_k(blocks: Bytes) -> Taken:
    fifth = blocks[:, None, 16:48] >> _EIGHT & np.uint8(1)
    return _fields(blocks[:, 48:], 32, 4) | fifth << np.uint8(4), integers(0), _scales_and_minima(blocks)


def _q6_k(blocks: Bytes) -> Taken:
    low = _fields(blocks[:, :128], 64, 4).reshape(len(blocks), 8, 32)
    codes = low | _fields(blocks[:, 128:192], 32, 2) << np.uint8(4)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return codes, integers(32), (Step(_half(blocks, 208) * scales),)


def _q8_k(blocks: Bytes) -> Taken:
    scale = np.ascontiguousarray(blocks[:, :4]).view("<f4").astype(np.float32)
    return blocks[:, 4:260], integers(signed=True), (Step(scale),)


def _iq4_nl(blocks: Bytes) -> Taken:
    return _pairs(blocks[:, 2:], 16), pairs_of(_IQ4), (Step(_half(blocks, 0)),)


def _iq4_xs(blocks: Bytes) -> Taken:
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = _fields(blocks[:, 4:8], 1, 4).reshape(-1, 8)
    scales = (low | high << 4).astype(np.float32) - 32
    return _pairs(blocks[:, 8:], 16), pairs_of(_IQ4), (Step(_half(blocks, 0) * scales),)


def _tq2_0(blocks: Bytes) -> Taken:
    return _fields(blocks[:, :64], 32, 2), integers(1), (Step(_half(blocks, 64)),)


def _mxfp4(blocks: Bytes) -> Taken:
    return _pairs(blocks[:, 1:], 16), pairs_of(_E2M1), (Step(blocks[:, :1], table=SCALES),)


def _nvfp4(blocks: Bytes) -> Taken:
    return _pairs(blocks[:, 4:], 8), pairs_of(_E2M1), (Step(blocks[:, :4], table=_UE4M3),)


def _ue4m3() -> Floats32:
    """What ggml makes of a scale byte: no sign, and 127 counts as 0."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    values = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(8 + mantissa, exponent - 10))
    values[0x7F] = 0
    table: Floats32 = values.astype(np.float32)
    table.flags.writeable = False
    return table


_UE4M3 = _ue4m3()

LAYOUTS: dict[str, Callable[[Bytes], Taken]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "Q8_K": _q8_k,
    "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs, "TQ2_0": _tq2_0, "MXFP4": _mxfp4, "NVFP4": _nvfp4,
}  # fmt: skip
"""How to take apart the blocks of each type."""

BY_LIBRARY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0")
"""Types whose code books are the `gguf` package's."""
