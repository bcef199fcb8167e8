"""The catalogue: every tensor's name, dtype, shape and place, from headers alone and checked before use."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, SourceIdentity


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header of its file states it; `span` holds absolute offsets in the file.

    `dtype` is the safetensors name: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, U8, I64, …
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: ByteRange

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Skipped:
    """A tensor (or a whole file, named `FILE (file)`) that is not audited, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """All that is known of a checkpoint before a weight is read.

    `tensors` are in file order within natural order of their files; `files` are the files that hold them, `config` is
    the parsed config.json (empty where there is none); `skipped` holds files that were recognised and left out; `base`
    is what an adapter was put on.
    """

    identity: SourceIdentity
    tensors: dict[str, TensorEntry]
    files: tuple[FileEntry, ...]
    config: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    base: SourceIdentity | None = None
