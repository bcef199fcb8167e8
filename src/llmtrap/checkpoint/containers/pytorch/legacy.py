"""Files of torch.save before 1.6: five pickles one after the other, then every storage's numbers.

The pickles are a magic number, a version, what the machine was, the object, and the keys of its storages in the order
in which their numbers follow: eight bytes that count the elements, then the elements.
"""

from __future__ import annotations

import re
from typing import Any

from llmtrap.checkpoint.containers.base import DAMAGED, OpenFile
from llmtrap.checkpoint.containers.pytorch.archive import at_once
from llmtrap.checkpoint.containers.pytorch.opcodes import MAX_PICKLE, PickleReader
from llmtrap.checkpoint.containers.pytorch.places import StoragePlace
from llmtrap.checkpoint.containers.pytorch.values import Storage
from llmtrap.checkpoint.containers.safetensors import BITS
from llmtrap.checkpoint.containers.stream import ByteStream
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.errors import CheckpointError, UnsupportedError

MAGIC = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
_VERSION = 1001


def read_legacy(file: OpenFile) -> tuple[Any, dict[str, StoragePlace]]:
    """The saved object, and where each storage's numbers lie.

    Raises:
        CheckpointError: the file is broken, or its storages are not those that the object names.
    """
    with file.turn:
        reader = PickleReader(ByteStream(file, 0, min(file.size, MAX_PICKLE), "the pickle"), file.name)
        reader.load()
        version, machine, saved = reader.load(), reader.load(), reader.load()
        if version != _VERSION or not isinstance(machine, dict):
            raise UnsupportedError(
                "a version of PyTorch's old format that is not read", file=file.name, remedy="Save it again"
            )
        if machine.get("little_endian") is not True:
            remedy = "Save it again on a little-endian machine"
            raise UnsupportedError("the numbers are big-endian", file=file.name, remedy=remedy)
        named, keys = reader.calls.storages, reader.load()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(named):
            raise CheckpointError("the storages are not those that the pickle names", file=file.name, remedy=DAMAGED)
    return saved, _places(file, reader.stream.position, keys, named)


def _places(file: OpenFile, start: int, keys: list[str], named: dict[str, Storage]) -> dict[str, StoragePlace]:
    """Where each storage must lie by the pickle, once the file's own counts say the same."""
    counts: list[tuple[int, Storage]] = []
    places: dict[str, StoragePlace] = {}
    for key in keys:
        storage = named[key]
        if storage.dtype is None or key in places:
            raise CheckpointError("two storages of one key, or one without a dtype", file=file.name, remedy=DAMAGED)
        counts.append((start, storage))
        stop = start + 8 + storage.count * BITS[storage.dtype] // 8
        if stop > file.size:
            problem = f"a storage of {storage.count} elements ends at byte {stop}, and the file has {file.size}"
            raise CheckpointError(problem, file=file.name, remedy=DAMAGED)
        places[key] = StoragePlace(ByteRange(file.name, start + 8, stop))
        start = stop
    if start != file.size:
        problem = f"{file.size - start} bytes after the last storage belong to none"
        raise CheckpointError(problem, file=file.name, remedy=DAMAGED)
    at_once(lambda item: _check_count(file, *item), counts, file)
    return places


def _check_count(file: OpenFile, start: int, storage: Storage) -> None:
    count = int.from_bytes(file.read(start, start + 8).tobytes(), "little")
    if count != storage.count:
        problem = f"a storage claims {count} elements, and the pickle {storage.count}"
        raise CheckpointError(problem, file=file.name, remedy=DAMAGED)
