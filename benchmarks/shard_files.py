"""Writing safetensors files piece by piece, so that a checkpoint larger than memory can be made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from llmtrap.demo.layout import TensorSpec, shard_name


def header_bytes(shard: Sequence[TensorSpec]) -> tuple[bytes, dict[str, int]]:
    """The header of one file, and where each tensor's data starts in that file.

    As the safetensors library lays files out: wider dtypes first, then by name, the header padded with spaces to a
    multiple of 8 bytes.
    """
    ordered = sorted(shard, key=lambda spec: (spec.dtype != "BF16", spec.name))
    entries: dict[str, Any] = {}
    offset = 0
    for spec in ordered:
        place = [offset, offset + spec.nbytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": place}
        offset = place[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + entry["data_offsets"][0] for name, entry in entries.items()}


class ShardFiles:
    """All files of a checkpoint, open for writing any part of any tensor; a context manager."""

    def __init__(self, folder: Path, shards: Sequence[Sequence[TensorSpec]]):
        self._files: list[BinaryIO] = []
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        for number, shard in enumerate(shards):
            file = (folder / shard_name(number, len(shards))).open("wb", buffering=0)
            self._files.append(file)
            header, starts = header_bytes(shard)
            file.write(header)
            file.truncate(len(header) + sum(spec.nbytes for spec in shard))
            self._places |= {name: (file, start) for name, start in starts.items()}

    def write(self, tensor: str, offset: int, data: NDArray[Any]) -> None:
        """Write the array's bytes at `offset` bytes into the tensor."""
        file, start = self._places[tensor]
        file.seek(start + offset)
        remaining = memoryview(data.reshape(-1).view(np.uint8).data)
        while remaining:  # one write call moves at most 2 GiB
            remaining = remaining[file.write(remaining) :]

    def __enter__(self) -> ShardFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
