"""A target's catalogue: layout, headers and configuration read together, and held against one another."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llmtrap.checkpoint.config import flag, read_config
from llmtrap.checkpoint.containers import ContentsReader
from llmtrap.checkpoint.containers.gguf.model import check_split, model_config
from llmtrap.checkpoint.layout import Layout, find_layout
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.not_weights import refuse_ungathered, refuse_updates
from llmtrap.checkpoint.parallel import check_whole, is_parallel, join_parallel
from llmtrap.checkpoint.quantisation import with_quantisation
from llmtrap.checkpoint.refusals import WEIGHT_SUFFIXES, left_aside
from llmtrap.checkpoint.shared import HEADS, take_out_shared
from llmtrap.checkpoint.small_values import read_small_values
from llmtrap.checkpoint.sources.base import Source
from llmtrap.checkpoint.tensors import Catalogue, FileContents, Skipped, TensorEntry
from llmtrap.checkpoint.training import read_training
from llmtrap.checkpoint.weight_index import CONTRADICTION
from llmtrap.errors import CheckpointError

_BUFFERS = (".inv_freq", ".position_ids", ".masked_bias", ".attn.bias")  # what transformers makes anew
_MAY_MISS = 0.05
_READERS = 8  # of headers that come over a network; those of local files would only wait for one another


def read_catalogue(source: Source, folder: str = "") -> Catalogue:
    """Read all headers of a checkpoint; no weight is read.

    Args:
        source: where the files are.
        folder: a subfolder of it with a slash at its end, to read that alone; empty for the whole target.

    Returns:
        The catalogue: tensors in the order of their files and bytes, and what was left aside.

    Raises:
        CheckpointError: a header, the index or the configuration is broken, or they contradict one another.
        UnsafeFileError: a pickle, or a path that leads out of the folder.
        UnsupportedError: a format that is not read, or factors of an update in the place of weights.
        TargetError: no weights at all.
    """
    layout, contents = _read_files(source, folder)
    config = with_quantisation(source, read_config(source, f"{folder}config.json"), folder)
    tensors: dict[str, TensorEntry] = {}
    skipped = list(layout.skipped)
    for of_file in contents:
        refuse_updates(of_file.tensors)
        refuse_ungathered(of_file.tensors)
        skipped += of_file.skipped
        for entry in of_file.tensors:
            _add(entry, layout, tensors, skipped)
    skipped += _missing(layout, tensors, config)
    shared = take_out_shared(source, tensors, skipped, config)
    metadata = {shard.name: of_file.metadata for shard, of_file in zip(layout.shards, contents, strict=False)}
    if any("general.architecture" in of_file or "split.count" in of_file for of_file in metadata.values()):
        check_split(metadata)
        config = config or model_config(next(iter(metadata.values())), tensors)
    values = read_small_values(source, tensors.values())
    return Catalogue(source.identity, tensors, layout.shards, config, tuple(skipped), None, metadata, shared, values)


def _read_files(source: Source, folder: str) -> tuple[Layout, list[FileContents]]:
    """The files of a checkpoint and what they hold: each by itself, or all together where they hold slices."""
    training = read_training(source, folder)
    if training is not None:
        whole, files = training
        aside = [
            left_aside(file, file.name[len(folder) :])
            for file in source.files()
            if file.name.startswith(folder) and file.name.endswith(WEIGHT_SUFFIXES) and file not in files
        ]
        mentioned = {item.tensor for item in whole.skipped}
        return Layout(files, None, tuple(item for item in aside if item.tensor not in mentioned)), [whole]
    layout = find_layout(source, folder)
    reader = ContentsReader(source)
    if source.identity.kind in ("hub", "remote"):
        with ThreadPoolExecutor(min(_READERS, len(layout.shards))) as readers:
            contents = list(readers.map(reader.read, layout.shards))
    else:
        contents = [reader.read(shard) for shard in layout.shards]
    if is_parallel([shard.name for shard in layout.shards]):
        return layout, [join_parallel(contents)]
    for shard, of_file in zip(layout.shards, contents, strict=True):
        check_whole(of_file, shard.name)
    return layout, contents


def _add(entry: TensorEntry, layout: Layout, tensors: dict[str, TensorEntry], skipped: list[Skipped]) -> None:
    """File one tensor. Of several copies the one is taken that lies where the index says, and the other is unmeasured.

    Libraries load every tensor of the shards, also one that the index does not name, and of two copies the last:
    transformers never looks up where the index places them.
    """
    name, other = entry.name, tensors.get(entry.name)
    if other is None:
        tensors[name] = entry
        return
    place = None if layout.weight_map is None else layout.weight_map.get(name)
    if place is None:
        problem = f"this tensor is in {other.span.file} too, and there is no index to say which counts"
        remedy = "Give the one file to audit as the target, or remove the other"
        raise CheckpointError(problem, file=entry.span.file, tensor=printable(name), remedy=remedy)
    chosen, copy = (entry, other) if entry.span.file == place else (other, entry)
    tensors[name] = chosen
    reason = f"in two shards; the index places it in {place}, and libraries may load this one: remove one of the two"
    size = sum(span.size for span in copy.spans)
    skipped.append(Skipped(f"{printable(name)} (in {copy.span.file})", reason, bytes=size))


def _missing(layout: Layout, tensors: Mapping[str, TensorEntry], config: dict[str, Any]) -> list[Skipped]:
    """The weights that the index names and no shard has, but for a head that is the embedding.

    A few are left out with the reason, as weights of which nothing is known; more are no index of these shards.
    """
    weight_map = layout.weight_map or {}
    tied = flag(config, "tie_word_embeddings") is True
    missing = [
        name
        for name in weight_map
        if name not in tensors and not name.endswith(_BUFFERS) and not (tied and name.endswith(HEADS))
    ]
    if len(missing) > len(weight_map) * _MAY_MISS:
        problem = "the index places this tensor here, and no shard has it"
        raise CheckpointError(problem, file=weight_map[missing[0]], tensor=printable(missing[0]), remedy=CONTRADICTION)
    return [Skipped(printable(name), "the index names it, and no shard has it") for name in missing]
