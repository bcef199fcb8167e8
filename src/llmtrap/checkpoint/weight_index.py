"""The index of a sharded checkpoint: which file holds each tensor, read with limits and kept inside the folder."""

from __future__ import annotations

import posixpath
import re

from llmtrap.checkpoint.containers.base import MAX_TENSORS
from llmtrap.checkpoint.names import MAX_NAME, printable
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.errors import CheckpointError, UnsafeFileError

MAX_INDEX = 100_000_000
_ASIDE = 10_000  # commas beside those between tensors: in metadata, and in names
TAMPERED = "Do not use this checkpoint: its index was tampered with"
CONTRADICTION = "The index and its shards are of different versions: fetch the checkpoint again"

_NAME = re.compile(r"(?P<stem>.+)(?P<suffix>\.safetensors|\.bin)\.index(?:\.(?P<variant>[^./]+))?\.json")


def index_parts(name: str) -> tuple[str, str, str | None] | None:
    """Stem, weights' suffix and variant of an index' name; None for any other file.

    `model.safetensors.index.json`, `model.safetensors.index.fp16.json` (transformers, diffusers).
    """
    found = None if "/" in name else _NAME.fullmatch(name)
    return (found["stem"], found["suffix"], found["variant"]) if found else None


def read_index(source: Source, file: FileEntry) -> dict[str, str]:
    """The file of each tensor, by the tensor's name; the files' names are relative to the index.

    Raises:
        CheckpointError: too large, not JSON, or without a weight_map.
        UnsafeFileError: a name that is no plain path inside the folder.
    """
    if file.size > MAX_INDEX:
        problem = f"{file.size} bytes are too many for an index ({MAX_INDEX} are the limit)"
        raise CheckpointError(problem, file=file.name, remedy="Fetch the file again")
    data = source.read(ByteRange(file.name, 0, file.size))
    if data.tobytes().count(b",") > MAX_TENSORS + _ASIDE:
        remedy = "The file is damaged or not what its name says: fetch it again"
        raise CheckpointError(f"the index names over {MAX_TENSORS:,} tensors", file=file.name, remedy=remedy)
    index = read_object(data, file=file.name, what="index", constants=True)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        problem = "the index has no weight_map of tensor names to file names"
        raise CheckpointError(problem, file=file.name, remedy="Save the checkpoint again with its own library")
    if not weight_map:
        raise CheckpointError("the index names no tensor", file=file.name, remedy=CONTRADICTION)
    for name in dict.fromkeys(weight_map.values()):
        if not _is_plain(name):
            problem = f"the index names the shard {printable(name)!r}, which is not a plain path inside the folder"
            raise UnsafeFileError(problem, file=file.name, remedy=TAMPERED)
    return weight_map


def _is_plain(name: str) -> bool:
    return not (
        len(name) > MAX_NAME
        or name.startswith(("/", "\\"))
        or ":" in name[:3]
        or posixpath.normpath(name) != name
        or name.startswith("..")
    )
