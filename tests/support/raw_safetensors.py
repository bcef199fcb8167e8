"""Writes safetensors files field by field, so that a test can lie in any of them; data may be a hole in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "U8": 8,
    "I64": 64,
    "I32": 32,
    "F8_E8M0": 8,
    "C64": 64,
}


def header(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """A true header: tensors of these dtypes and shapes, one behind the other."""
    fields, position = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = BITS[dtype] // 8
        for length in shape:
            size *= length
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return fields


def write(path: Path, fields: dict[str, Any] | bytes, data: bytes | int, *, length: int | None = None) -> Path:
    """Write a file from header fields (or raw header bytes) and data (or a length of zeros that takes no disk)."""
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    with path.open("wb") as file:
        file.write((len(raw) if length is None else length).to_bytes(8, "little"))
        file.write(raw)
        if isinstance(data, bytes):
            file.write(data)
        else:
            file.truncate(8 + len(raw) + data)
    return path


def sparse(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A valid file whose data are zeros that take no disk."""
    fields = header(tensors)
    return write(path, fields, max((entry["data_offsets"][1] for entry in fields.values()), default=0))
