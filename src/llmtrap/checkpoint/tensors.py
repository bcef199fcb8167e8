"""The catalogue: every tensor's name, dtype, shape and place, from headers alone and checked before use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, SourceIdentity


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor that has its own place in a file.

    It holds the elements [offsets, offsets + shape) of the tensor, one count a dimension; neighbours along dimension k
    lie `strides[k]` elements apart in the file. `span` runs from the chunk's first element to its last.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    span: ByteRange


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as its container states it; `span` holds absolute offsets in the file.

    `dtype` is the safetensors name (F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, U8, I64, …) or that of a GGUF block
    type (Q4_K, …). A tensor whose elements follow one another, last dimension fastest, has no `chunks`. Any other (a
    transposed view, a part of a larger storage, a tensor cut up over several files) has its chunks, which together
    cover it exactly; `span` is the first one's then, and only encodings that ask for `chunks` may read it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: ByteRange
    chunks: tuple[Chunk, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def spans(self) -> tuple[ByteRange, ...]:
        """Every range of bytes that holds a part of the tensor."""
        return tuple(chunk.span for chunk in self.chunks) or (self.span,)

    def placed(self, place: Callable[[str], str]) -> TensorEntry:
        """The same tensor where its files have other names."""

        def moved(span: ByteRange) -> ByteRange:
            return ByteRange(place(span.file), span.start, span.stop)

        chunks = tuple(replace(chunk, span=moved(chunk.span)) for chunk in self.chunks)
        return replace(self, span=moved(self.span), chunks=chunks)


SkipKind = Literal["unreadable", "table", "one_dimensional", "buffer", "on_request", "file_not_read", "unmeasured"]


@dataclass(frozen=True)
class Skipped:
    """A tensor (or a whole file, named `FILE (file)`) that is not audited, and why.

    `kind` says what it counts as in the report's coverage. What nobody classified counts as unmeasured weights, so that
    no verdict is clean by oversight. `parameters` is 0 for a file: its headers were not read.
    """

    tensor: str
    reason: str
    kind: SkipKind = "unmeasured"
    parameters: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, entry: TensorEntry, reason: str, kind: SkipKind) -> Skipped:
        """A stored tensor that is left out, with its size."""
        return cls(printable(entry.name), reason, kind, entry.size, sum(span.size for span in entry.spans))


@dataclass(frozen=True)
class FileContents:
    """What one weight file holds: its tensors in the order of the file, what it says beside them, what is left out.

    `metadata` is the container's own: `__metadata__` of safetensors, the keys of GGUF.
    """

    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All that is known of a checkpoint before a weight is read.

    `tensors` are in file order within natural order of their files; `files` are the files that hold them, `config` is
    the parsed config.json, or what the files' metadata say in its place (empty where there is neither); `metadata` is
    each file's own, by the file's name; `skipped` holds files that were recognised and left out; `base` is what an
    adapter was put on; `shared` gives the other names of tensors that are stored once under several; `small_values`
    are the bytes of tensors that describe others, by their names.
    """

    identity: SourceIdentity
    tensors: dict[str, TensorEntry]
    files: tuple[FileEntry, ...]
    config: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    base: SourceIdentity | None = None
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    small_values: dict[str, bytes] = field(default_factory=dict)
