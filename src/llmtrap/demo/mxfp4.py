"""Writing MXFP4: float32 rows into the packed blocks and scales that GPT-OSS stores, and back.

Reading real checkpoints is the business of `llmtrap.checkpoint.encodings`; this module makes input for it, and so
decodes by another road (ml-dtypes' own E2M1) than the reader does.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BLOCK = 32
SCALE_BIAS = 127
E2M1_MAX_EXPONENT = 2  # the largest E2M1 value is 6 = 1.5 · 2²

Floats = NDArray[np.float32]
Packed = NDArray[np.uint8]


def quantise(values: Floats) -> tuple[Packed, Packed]:
    """Round to MXFP4 as OCP's Microscaling specification 1.0 does (section 6.3).

    Each block of 32 consecutive values of the last axis shares the scale 2^(⌊log₂ max|v|⌋ − 2); a value over 6 times
    the scale saturates, every other goes to the nearest E2M1 number, ties to even.

    Args:
        values: float32 [..., columns], columns a multiple of 32.

    Returns:
        blocks uint8 [..., columns / 32, 16], two values a byte with the even column in the low nibble, and
        scales uint8 [..., columns / 32], the exponent plus 127.

    Raises:
        ValueError: the columns do not divide into blocks, or a value is not finite.
    """
    if values.shape[-1] % BLOCK:
        raise ValueError(f"{values.shape[-1]} columns are not a multiple of {BLOCK}")
    grouped = np.ascontiguousarray(values, dtype=np.float32).reshape(*values.shape[:-1], -1, BLOCK)
    largest = np.maximum(grouped.max(axis=-1), -grouped.min(axis=-1))
    if not np.isfinite(largest).all():
        raise ValueError("MXFP4 has no infinity and no NaN")
    # frexp gives largest = m · 2^e with m in [½, 1), so ⌊log₂ largest⌋ = e − 1 exactly, without a logarithm's rounding.
    exponent = np.frexp(largest)[1] - 1 - E2M1_MAX_EXPONENT
    exponent[largest == 0] = -SCALE_BIAS
    exponent = np.clip(exponent, -SCALE_BIAS, SCALE_BIAS)
    scaled = np.ldexp(grouped, -exponent[..., None])
    codes = scaled.astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0x0F
    blocks = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return blocks, (exponent + SCALE_BIAS).astype(np.uint8)


def dequantise(blocks: Packed, scales: Packed) -> Floats:
    """Invert `quantise`: uint8 [..., n, 16] and [..., n] to float32 [..., 32 n]."""
    codes = np.empty((*blocks.shape[:-1], BLOCK), dtype=np.uint8)
    codes[..., 0::2] = blocks & 0x0F
    codes[..., 1::2] = blocks >> 4
    steps: Floats = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    values: Floats = np.ldexp(steps, scales[..., None].astype(np.int32) - SCALE_BIAS)
    return values.reshape(*blocks.shape[:-2], -1)
