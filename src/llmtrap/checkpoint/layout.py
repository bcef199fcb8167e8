"""Which files of a target are the checkpoint: the index's shards, one file, or several; and what is left aside."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llmtrap.checkpoint.names import MAX_NAME, natural_key, printable
from llmtrap.checkpoint.refusals import WEIGHT_SUFFIXES, left_aside, refuse_target
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.checkpoint.tensors import Skipped
from llmtrap.errors import CheckpointError, UnsafeFileError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_INDEX = 100_000_000

_SECOND_COPIES = ("consolidated*.safetensors", "adapter_model*.safetensors")
_COPY = "Put a copy of the file in its place"
_INCOMPLETE = "Fetch the missing file into the checkpoint's folder"
_CONTRADICTION = "The index and its shards are of different versions: fetch the checkpoint again"


@dataclass(frozen=True)
class Layout:
    """The weight files to read, the index that names them, and the files left aside with their reasons.

    `weight_map` gives the file of each tensor where there is an index, else None.
    """

    shards: tuple[FileEntry, ...]
    weight_map: dict[str, str] | None
    skipped: tuple[Skipped, ...]


def find_layout(source: Source) -> Layout:
    """Choose the weight files of a target, from names alone (and the index, where there is one).

    Raises:
        CheckpointError: the index is broken, leads out of the folder or names a shard that is missing.
        UnsafeFileError: there is nothing but pickles, or a shard is a link that leads out of the folder.
        UnsupportedError: the weights are in a format that is not read.
        TargetError: there are no weights at all.
    """
    files = {file.name: file for file in source.files()}
    refused: dict[str, str] = getattr(source, "refused", {})
    index = _index_name(files, refused)
    weight_map = _read_index(source, files[index]) if index else None
    if weight_map is not None and index is not None:
        shards = tuple(_shard(name, index, files, refused) for name in dict.fromkeys(weight_map.values()))
        shards = tuple(sorted(shards, key=lambda shard: natural_key(shard.name)))
    else:
        shards = tuple(files[name] for name in _without_index(source, files, refused))
    chosen = {shard.name for shard in shards}
    skipped = [left_aside(name) for name in files if name not in chosen and name.endswith(WEIGHT_SUFFIXES)]
    skipped += [Skipped(f"{printable(name)} (file)", reason) for name, reason in refused.items()]
    return Layout(shards, weight_map, tuple(skipped))


def _index_name(files: dict[str, FileEntry], refused: dict[str, str]) -> str | None:
    if INDEX in refused:
        raise UnsafeFileError(f"the index is {refused[INDEX]}", file=INDEX, remedy=_COPY)
    if INDEX in files:
        return INDEX
    if SINGLE in files:
        return None
    others = [name for name in files if "/" not in name and name.endswith(".safetensors.index.json")]
    return others[0] if others else None


def _read_index(source: Source, file: FileEntry) -> dict[str, str]:
    if file.size > MAX_INDEX:
        problem = f"{file.size} bytes are too many for an index ({MAX_INDEX} are the limit)"
        raise CheckpointError(problem, file=file.name, remedy="Fetch the file again")
    index = read_object(source.read(ByteRange(file.name, 0, file.size)), file=file.name, what="index")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        problem = "the index has no weight_map of tensor names to file names"
        raise CheckpointError(problem, file=file.name, remedy="Save the checkpoint again with its own library")
    if not weight_map:
        raise CheckpointError("the index names no tensor", file=file.name, remedy=_CONTRADICTION)
    return weight_map


def _shard(name: str, index: str, files: dict[str, FileEntry], refused: dict[str, str]) -> FileEntry:
    shown = printable(name)
    if (
        len(name) > MAX_NAME
        or name.startswith(("/", "\\"))
        or ":" in name[:3]
        or posixpath.normpath(name) != name
        or name.startswith("..")
    ):
        problem = f"the index names the shard {shown!r}, which is not a plain path inside the folder"
        raise UnsafeFileError(problem, file=index, remedy="Do not use this checkpoint: its index was tampered with")
    if name in refused:
        problem = f"the shard that {index} names is {refused[name]}"
        raise UnsafeFileError(problem, file=shown, remedy=_COPY)
    if name not in files:
        raise CheckpointError(f"the shard that {index} names is missing", file=shown, remedy=_INCOMPLETE)
    if not name.endswith(".safetensors"):
        refuse_target(source_name=index, names=[name])
    return files[name]


def _without_index(source: Source, files: dict[str, FileEntry], refused: dict[str, str]) -> list[str]:
    if source.identity.kind == "file":
        name = next(name for name in files if posixpath.basename(source.identity.name) == name)
        if name.endswith(".safetensors") and not fnmatchcase(name, "adapter_model*"):
            return [name]
        refuse_target(source_name=source.identity.name, names=[name])
    if SINGLE in files:
        return [SINGLE]
    root = [name for name in files if "/" not in name and name.endswith(".safetensors")]
    first = [name for name in root if not any(fnmatchcase(name, pattern) for pattern in _SECOND_COPIES)]
    copies = [name for name in root if fnmatchcase(name, "consolidated*.safetensors")]
    if first or copies:
        return sorted(first or copies, key=natural_key)
    for name, reason in refused.items():
        if "/" not in name and name.endswith(".safetensors"):
            raise UnsafeFileError(f"the weights are {reason}", file=printable(name), remedy=_COPY)
    return refuse_target(source_name=source.identity.name, names=list(files))
