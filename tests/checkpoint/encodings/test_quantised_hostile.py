"""Headers and configurations of quantised checkpoints, changed at random: read, or refused as llmtrap refuses."""

from __future__ import annotations

import contextlib
import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tests.checkpoint.encodings.test_quantised_layouts import CASES, NAME

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import LlmtrapError

DTYPES = ("F32", "F16", "BF16", "U8", "I8", "I32", "U32", "I64", "F8_E4M3", "F8_E8M0", "F64", "BOOL", "F4")
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "F4": 4}
OTHER_NAMES = ("scale", "weight", "qzeros", "weight_shape", "scales", "weight._data", "g_idx", "weight_g_idx", "shape")
VALUES = (None, -1, 0, 3, "x", [], {}, 1e300, [1, 2], True)
LARGEST = 1 << 20


def stored(name: str) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """Header, data and configuration of one case."""
    case = CASES[name]()
    tensors = {
        f"{NAME}.{part}": (value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))).contiguous()
        for part, value in case.tensors.items()
    }
    raw = save(tensors, metadata=case.metadata)
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :], case.config


def changed(header: dict[str, Any], chance: random.Random) -> None:
    """Change one thing about one tensor."""
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    kind = chance.randrange(6)
    if kind == 0 and len(header) > 2:
        del header[name]
    elif kind == 1:
        entry["dtype"] = chance.choice(DTYPES)
    elif kind == 2 and entry["shape"]:
        entry["shape"][chance.randrange(len(entry["shape"]))] = chance.choice([0, 1, 2, 3, 7, 16, 64])
    elif kind == 3:
        header[f"{NAME}.{chance.choice(OTHER_NAMES)}"] = header.pop(name)
    elif kind == 4:
        entry["shape"] = [1, *entry["shape"]]
    else:
        entry["shape"] = entry["shape"][::-1]


def written(header: dict[str, Any], data: bytes, folder: Path) -> bool:
    """Write a valid file of this header, its tensors' bytes repeated or cut; whether it was small enough."""
    fields, blob = {}, b""
    for name, entry in header.items():
        if name == "__metadata__":
            fields[name] = entry
            continue
        size = math.prod(entry["shape"]) * BITS.get(entry["dtype"], 8) // 8
        if size > LARGEST:
            return False
        first, last = entry["data_offsets"]
        mine = data[first:last] or b"\0"
        fields[name] = {**entry, "data_offsets": [len(blob), len(blob) + size]}
        blob += (mine * (size // len(mine) + 1))[:size]
    text = json.dumps(fields).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + blob)
    return True


@pytest.mark.parametrize("name", [name for number, name in enumerate(CASES) if number % 3 == 0])
def test_it_is_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    original, data, config = stored(name)
    for _ in range(15):
        header, settings = json.loads(json.dumps(original)), json.loads(json.dumps(config))
        for _ in range(chance.randint(1, 3)):
            changed(header, chance)
        if chance.random() < 0.3 and "quantization_config" in settings:
            settings["quantization_config"][chance.choice(list(settings["quantization_config"]))] = chance.choice(
                VALUES
            )
        if not written(header, data, tmp_path):
            continue
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with contextlib.suppress(LlmtrapError):  # anything else, a warning included, fails the test
            checkpoint = open_checkpoint(str(tmp_path))
            for matrix in checkpoint.matrices:
                assert matrix.read(checkpoint.source).shape == matrix.shape
