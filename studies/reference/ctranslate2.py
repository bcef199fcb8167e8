"""Whisper out of CTranslate2's file: its FP16 matrices under the names that transformers gives them.

The file, little-endian: version (u32), name of the spec, its revision (u32), number of variables (u32); of each its
name, rank (u8), dimensions (u32 each), type (u8, 4 is float16), bytes (u32) and values. A text is its length (u16, the
closing zero counted) and its bytes. See CTranslate2's `Model.load` and `model_spec.py`.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT16 = 4
_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(self_attention|attention|ffn)/linear_(\d)/weight")


def read_whisper(path: Path) -> dict[str, NDArray[Any]]:
    """The matrices of every layer, the convolutions and the embedding, as float16 arrays [out, in]."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in _variables(path.read_bytes()).items():
        found |= _renamed(name, values)
    return found


def _variables(data: bytes) -> dict[str, NDArray[Any]]:
    place = 4
    _, place = _text(data, place)
    count = struct.unpack_from("<I", data, place + 4)[0]
    place += 8
    found = {}
    for _ in range(count):
        name, place = _text(data, place)
        rank = data[place]
        shape = struct.unpack_from(f"<{rank}I", data, place + 1)
        place += 1 + 4 * rank
        kind, size = data[place], struct.unpack_from("<I", data, place + 1)[0]
        place += 5
        if kind == _FLOAT16:
            found[name] = np.frombuffer(data, "<f2", size // 2, place).reshape(shape)
        place += size
    return found


def _text(data: bytes, place: int) -> tuple[str, int]:
    length = struct.unpack_from("<H", data, place)[0]
    return data[place + 2 : place + 1 + length].decode(), place + 2 + length


def _renamed(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    plain = {
        "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
        "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
        "encoder/conv1/weight": "model.encoder.conv1.weight",
        "encoder/conv2/weight": "model.encoder.conv2.weight",
    }
    if name in plain:
        return {plain[name]: values}
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return {}
    side, number, block, linear = layer.groups()
    start = f"model.{side}.layers.{number}."
    if block == "ffn":
        return {f"{start}fc{int(linear) + 1}.weight": values}
    start += _ATTENTION[block] + "."
    parts = {"self_attention": ("qkv", "out"), "attention": ("q", "kv", "out")}[block][int(linear)]
    if parts == "out":
        return {f"{start}out_proj.weight": values}
    split = np.split(values, len(parts))
    return {f"{start}{part}_proj.weight": piece for part, piece in zip(parts, split, strict=True)}
