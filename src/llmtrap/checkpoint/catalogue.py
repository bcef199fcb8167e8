"""A target's catalogue: layout, headers and configuration read together, and held against one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from llmtrap.checkpoint.config import read_config
from llmtrap.checkpoint.containers import ContentsReader
from llmtrap.checkpoint.layout import Layout, find_layout
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import Source
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import CheckpointError

_CONTRADICTION = "The index and its shards are of different versions: fetch the checkpoint again"
_READERS = 8  # headers come over the network from a hub, so several at once


def read_catalogue(source: Source) -> Catalogue:
    """Read all headers of a checkpoint; no weight is read.

    Args:
        source: where the files are.

    Returns:
        The catalogue: tensors in the order of their files and bytes, and what was left aside.

    Raises:
        CheckpointError: a header, the index or the configuration is broken, or they contradict one another.
        UnsafeFileError: a pickle, or a path that leads out of the folder.
        UnsupportedError: a format that is not read.
        TargetError: no weights at all.
    """
    layout = find_layout(source)
    config = read_config(source)
    with ThreadPoolExecutor(min(_READERS, len(layout.shards))) as readers:
        contents = list(readers.map(ContentsReader(source).read, layout.shards))
    tensors: dict[str, TensorEntry] = {}
    skipped = list(layout.skipped)
    for of_file in contents:
        skipped += of_file.skipped
        for entry in of_file.tensors:
            _add(entry, layout, tensors, skipped)
    if layout.weight_map is not None:
        for name, file in layout.weight_map.items():
            if name not in tensors:
                problem = "the index places this tensor here, and the file does not have it"
                raise CheckpointError(problem, file=file, tensor=printable(name), remedy=_CONTRADICTION)
    metadata = {shard.name: of_file.metadata for shard, of_file in zip(layout.shards, contents, strict=True)}
    return Catalogue(source.identity, tensors, layout.shards, config, tuple(skipped), metadata=metadata)


def _add(entry: TensorEntry, layout: Layout, tensors: dict[str, TensorEntry], skipped: list[Skipped]) -> None:
    """File one tensor, once it agrees with the index and with the other files."""
    name, file = entry.name, entry.span.file
    if layout.weight_map is None:
        if name in tensors:
            problem = f"this tensor is in {tensors[name].span.file} too, and there is no index to say which counts"
            remedy = "Give the one file to audit as the target, or remove the other"
            raise CheckpointError(problem, file=file, tensor=printable(name), remedy=remedy)
    elif name not in layout.weight_map:
        raise CheckpointError(
            "the index does not name this tensor", file=file, tensor=printable(name), remedy=_CONTRADICTION
        )
    elif layout.weight_map[name] != file:
        place = layout.weight_map[name]
        skipped.append(
            Skipped(f"{printable(name)} (in {file})", f"a second copy; the index places the tensor in {place}")
        )
        return
    tensors[name] = entry
