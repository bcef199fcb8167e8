"""What a few numbers in a checkpoint say of its other tensors: shapes and settings that quantisers store as tensors.

They are read with the catalogue, since no shape is known before; those that lie near one another are read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from llmtrap.checkpoint.sources.base import ByteRange, Source
from llmtrap.checkpoint.tensors import TensorEntry

NAMES = ("weight_shape", "bitsandbytes__*", "shape", "group_size", "axis", "nbits", "packing", "view_as_float")
"""Last parts of the names of such tensors: of compressed-tensors, of bitsandbytes, of HQQ."""

MAX_VALUE = 4096
"""Bytes of one of them."""

_GAP = 16 << 10  # bytes between two of them that are read along rather than asked for twice
_READERS = 8


def read_small_values(source: Source, tensors: Iterable[TensorEntry]) -> dict[str, bytes]:
    """The bytes of all tensors that describe others, by their names.

    Raises:
        CheckpointError: the file is shorter than its header says, or changed.
    """
    wanted = [entry for entry in tensors if 0 < entry.span.size <= MAX_VALUE and not entry.chunks and _describes(entry)]
    runs = list(_runs(wanted))
    if not runs:
        return {}
    with ThreadPoolExecutor(min(_READERS, len(runs))) as readers:
        read = list(readers.map(lambda run: source.read(_around(run)), runs))
    values = {}
    for run, data in zip(runs, read, strict=True):
        first = run[0].span.start
        for entry in run:
            values[entry.name] = data[entry.span.start - first : entry.span.stop - first].tobytes()
    return values


def _describes(entry: TensorEntry) -> bool:
    last = entry.name.rpartition(".")[2]
    return last in NAMES or last.startswith("bitsandbytes__")


def _runs(entries: list[TensorEntry]) -> Iterator[list[TensorEntry]]:
    """The entries in the order of their bytes, those with small gaps between them together."""
    run: list[TensorEntry] = []
    for entry in sorted(entries, key=lambda entry: (entry.span.file, entry.span.start)):
        near = run and run[-1].span.file == entry.span.file and entry.span.start - run[-1].span.stop <= _GAP
        if run and not near:
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def _around(run: list[TensorEntry]) -> ByteRange:
    return ByteRange(run[0].span.file, run[0].span.start, run[-1].span.stop)
