"""Folders of torch.distributed.checkpoint (DCP), as FSDP2, torchtitan, Lightning and Megatron write them.

`.metadata` is a pickle: the shape and dtype of each tensor, its chunks, and where each chunk lies. A chunk is a small
file of torch.save within `__RANK_NUMBER.distcp`. Both are read as such files are: nothing is unpickled.
"""

from __future__ import annotations

import posixpath
import threading
from collections import Counter
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from llmtrap.checkpoint.containers.base import FIRST_READ, MAX_TENSORS, OpenFile
from llmtrap.checkpoint.containers.pytorch import PyTorch
from llmtrap.checkpoint.containers.pytorch.calls import StateDictCalls
from llmtrap.checkpoint.containers.pytorch.opcodes import MAX_PICKLE, PickleReader
from llmtrap.checkpoint.containers.pytorch.state import beside_weights
from llmtrap.checkpoint.containers.pytorch.values import DTYPES, Name, Opaque
from llmtrap.checkpoint.containers.stream import ByteStream
from llmtrap.checkpoint.names import MAX_NAME, encodable, printable
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.sources.offset import OffsetSource
from llmtrap.checkpoint.tensors import Chunk, FileContents, Skipped, TensorEntry
from llmtrap.checkpoint.training.boxes import covers, strides
from llmtrap.errors import CheckpointError, UnsupportedError

METADATA = ".metadata"
SUFFIX = ".distcp"
_READERS = 8
_AGAIN = "Save it again with torch.distributed.checkpoint, best with its HuggingFaceStorageWriter as safetensors"
_INCOMPLETE = "Fetch the missing file into the checkpoint's folder"


def is_dcp(source: Source, folder: str = "") -> bool:
    """Whether a folder is one of torch.distributed.checkpoint's."""
    names = {file.name for file in source.files()}
    inside = (name for name in names if posixpath.dirname(name) == folder.rstrip("/"))
    return f"{folder}{METADATA}" in names and any(name.endswith(SUFFIX) for name in inside)


@dataclass
class _Record:
    """An object of one of DCP's own classes: its name and its attributes, once they are built."""

    kind: str
    state: Any = None

    def get(self, key: str, position: int) -> Any:
        """An attribute, whether the state is a dictionary or a tuple."""
        if isinstance(self.state, dict):
            return self.state.get(key)
        if isinstance(self.state, tuple) and len(self.state) > position:
            return self.state[position]
        return None


_CLASSES = (
    "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
    "MetadataIndex", "StorageMeta", "_StorageInfo",
)  # fmt: skip


class _MetadataCalls(StateDictCalls):
    """Answers the calls of `.metadata`: its classes become records, all else is as in a state dict."""

    def call(self, name: Any, arguments: Any) -> Any:
        if isinstance(name, Name) and name.module.startswith("torch.distributed."):
            return _Record(name.attribute) if name.attribute in _CLASSES else Opaque("an object")
        return super().call(name, arguments)

    def build(self, value: Any, state: Any) -> Any:
        if isinstance(value, _Record):
            value.state = state
            return value
        return super().build(value, state)

    def key(self, key: Any, count: int) -> Hashable:
        if isinstance(key, _Record):
            return _place_of(key)
        return super().key(key, count)


def _place_of(index: _Record) -> Hashable:
    """A chunk's key: the tensor's name and the chunk's offsets."""
    name, offsets = index.get("fqn", 0), index.get("offset", 1)
    return (name if isinstance(name, str) else ""), (offsets if _is_shape(offsets) else None)


def read_dcp(source: Source, folder: str = "") -> tuple[FileContents, tuple[FileEntry, ...]]:
    """The tensors of a folder, each of its chunks, and the files that hold them; no weight is read.

    Raises:
        CheckpointError: the metadata are broken, a file is missing, or chunks do not cover their tensor.
        UnsafeFileError: the metadata name a function that none need.
        UnsupportedError: a writer whose chunks are compressed, or no files of torch.save.
    """
    files = {file.name: file for file in source.files()}
    whole = _read_metadata(source, files[f"{folder}{METADATA}"])
    tensors, storage = whole.get("state_dict_metadata", 0), whole.get("storage_data", 2)
    paths = whole.get("planner_data", 1)
    if not isinstance(tensors, dict) or not isinstance(storage, dict):
        raise _wrong("has no table of tensors and none of their places", f"{folder}{METADATA}")
    reader = _ChunkReader(source, folder, files, storage)
    entries, skipped, wanted = [], [], []
    for name, stored in tensors.items():
        if not isinstance(name, str) or not isinstance(stored, _Record) or stored.kind != "TensorStorageMetadata":
            continue
        if len(name) > MAX_NAME or not encodable(name):
            raise _wrong(f"names a tensor {printable(name)}", f"{folder}{METADATA}")
        part = _first(paths.get(name) if isinstance(paths, dict) else None) or name.partition(".")[0]
        if beside_weights(part):
            skipped.append(part)
        else:
            wanted.append((name, stored))
    if len(wanted) > MAX_TENSORS:
        raise _wrong(f"names over {MAX_TENSORS} tensors", f"{folder}{METADATA}")
    with ThreadPoolExecutor(_READERS) as readers:
        entries = list(readers.map(lambda item: reader.read(*item), wanted))
    left_out = [
        Skipped(f"{printable(part)} ({count} tensors)", *beside)
        for part, count in Counter(skipped).items()
        if (beside := beside_weights(part))
    ]
    used = {span.file for entry in entries for span in entry.spans}
    return FileContents(tuple(entries), {}, tuple(left_out)), tuple(files[name] for name in sorted(used))


def _read_metadata(source: Source, file: FileEntry) -> _Record:
    if file.size > MAX_PICKLE:
        raise _wrong(f"is a pickle of {file.size} bytes, larger than any checkpoint's", file.name)
    head = source.read(ByteRange(file.name, 0, min(file.size, FIRST_READ)))
    stream = ByteStream(OpenFile(source, file, head, threading.Lock()), 0, file.size, "the metadata")
    whole = PickleReader(stream, file.name, _MetadataCalls(file.name)).load()
    if not isinstance(whole, _Record) or whole.kind != "Metadata":
        raise _wrong("is no metadata of torch.distributed.checkpoint", file.name)
    return whole


class _ChunkReader:
    """Reads where in the files the chunks of each tensor lie."""

    def __init__(self, source: Source, folder: str, files: Mapping[str, FileEntry], storage: dict[Any, Any]):
        self._source = source
        self._folder = folder
        self._files = files
        self._storage = storage

    def read(self, name: str, stored: _Record) -> TensorEntry:
        """One tensor's entry: its chunks cover it exactly, or it is refused."""
        shape, chunks = stored.get("size", 1), stored.get("chunks", 2)
        properties = stored.get("properties", 0)
        dtype = _dtype(properties.get("dtype", 0)) if isinstance(properties, _Record) else None
        if not _is_shape(shape) or not isinstance(chunks, list) or dtype is None:
            raise self._wrong(name, "its metadata lack a shape, a dtype or chunks")
        placed = [self._chunk(name, dtype, chunk) for chunk in chunks]
        placed = [chunk for chunk in placed if 0 not in chunk.shape] or placed[:1]
        if 0 in shape:
            span = placed[0].span if placed else ByteRange(f"{self._folder}{METADATA}", 0, 0)
            return TensorEntry(name, dtype, shape, replace(span, stop=span.start))
        if not covers(shape, placed):
            raise self._wrong(name, f"its chunks do not make up its shape {list(shape)}")
        placed.sort(key=lambda chunk: chunk.offsets)
        whole = len(placed) == 1 and placed[0].strides == strides(shape)
        return TensorEntry(name, dtype, shape, placed[0].span, () if whole else tuple(placed))

    def _chunk(self, name: str, dtype: str, chunk: Any) -> Chunk:
        if not isinstance(chunk, _Record) or not all(map(_is_shape, (chunk.get("offsets", 0), chunk.get("sizes", 1)))):
            raise self._wrong(name, "a chunk without a place")
        offsets, sizes = chunk.get("offsets", 0), chunk.get("sizes", 1)
        span = self._span(name, self._storage.get((name, offsets)))
        part = OffsetSource(self._source, span)
        head = part.read(ByteRange(span.file, 0, min(span.size, FIRST_READ)))
        blob = OpenFile(part, FileEntry(span.file, span.size), head, threading.Lock())
        if not PyTorch().recognises(head.tobytes()[:32]):
            problem = "its chunks are no files of torch.save: another writer, or a compressed one"
            raise UnsupportedError(problem, file=span.file, tensor=printable(name), remedy=_AGAIN)
        found = PyTorch().read(blob).tensors
        if len(found) != 1 or (found[0].shape, found[0].dtype) != (sizes, dtype):
            raise self._wrong(name, f"its chunk at {list(offsets)} is not the one that the metadata describe")
        (entry,) = found
        steps = entry.chunks[0].strides if entry.chunks else strides(sizes)
        start = span.start + entry.span.start
        return Chunk(offsets, sizes, steps, ByteRange(span.file, start, start + entry.span.size))

    def _span(self, name: str, info: Any) -> ByteRange:
        path, start, length = (
            (info.get("relative_path", 0), info.get("offset", 1), info.get("length", 2))
            if isinstance(info, _Record)
            else (None, None, None)
        )
        if (
            not isinstance(info, _Record)
            or not isinstance(path, str)
            or type(start) is not int
            or type(length) is not int
            or min(start, length) < 0
        ):
            raise self._wrong(name, "the metadata do not say where one of its chunks lies")
        if info.get("transform_descriptors", 3):
            problem = "its chunks are compressed or encrypted"
            raise UnsupportedError(problem, file=f"{self._folder}{METADATA}", tensor=printable(name), remedy=_AGAIN)
        file = self._files.get(f"{self._folder}{path}")
        if file is None:
            problem = "a file that the metadata name is missing"
            raise CheckpointError(problem, file=printable(f"{self._folder}{path}"), remedy=_INCOMPLETE)
        if start + length > file.size:
            raise self._wrong(name, f"its chunk ends at byte {start + length}, and {file.name} has {file.size}")
        return ByteRange(file.name, start, start + length)

    def _wrong(self, name: str, problem: str) -> CheckpointError:
        return CheckpointError(problem, file=f"{self._folder}{METADATA}", tensor=printable(name), remedy=_AGAIN)


def _dtype(value: Any) -> str | None:
    return DTYPES.get(value.attribute) if isinstance(value, Name) and value.module == "torch" else None


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= 32
        and all(type(item) is int and 0 <= item < 1 << 62 for item in value)
    )


def _first(path: Any) -> str | None:
    return path[0] if isinstance(path, tuple) and len(path) > 1 and isinstance(path[0], str) else None


def _wrong(problem: str, file: str) -> CheckpointError:
    return CheckpointError(f"the file {problem}", file=file, remedy=_AGAIN)
