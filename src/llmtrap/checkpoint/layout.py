"""Which files of a folder are the checkpoint: those that its own library would load; and what is left aside."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llmtrap.checkpoint.file_sets import INCOMPLETE, check_complete, file_sets, preferred, variant_rank
from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.refusals import (
    WEIGHT_SUFFIXES,
    is_adapter_file,
    is_other_format,
    is_training_state,
    left_aside,
    refuse_target,
)
from llmtrap.checkpoint.sources.base import FileEntry, Source
from llmtrap.checkpoint.tensors import Skipped
from llmtrap.checkpoint.weight_index import TAMPERED, index_parts, read_index
from llmtrap.errors import CheckpointError, UnsafeFileError

_COPY = "Put a copy of the file in its place, or give the folder that a link leads to as the target"
_AMBIGUOUS = "Give the folder of one checkpoint: move the files of the other one elsewhere"

_STALE = "left over from another save: the single file beside it is what libraries load, and they look at no index then"
_OTHER_VARIANT = "the same weights in another precision; the files that a library loads unasked are audited"
_UNNAMED = "not named by the index, so no library loads it"


@dataclass(frozen=True)
class Kind:
    """One kind of weight file: what its files are called, and in which order libraries look for them.

    Of two `singles` the first counts. `before_index`: singles that are loaded though an index is there too, as
    transformers does; diffusers looks for an index first.
    """

    suffix: str
    singles: tuple[str, ...] = ()
    before_index: tuple[str, ...] = ()
    second_copies: tuple[str, ...] = ()
    other_suffixes: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the names of such files end in; those that an index names end in the first."""
        return (self.suffix, *self.other_suffixes)


INDEX = "model.safetensors.index.json"

KINDS = (
    Kind(
        ".safetensors",
        singles=("model.safetensors", "diffusion_pytorch_model.safetensors"),
        before_index=("model.safetensors",),
        second_copies=("consolidated*.safetensors",),
    ),
    Kind(
        ".bin",
        singles=("pytorch_model.bin", "diffusion_pytorch_model.bin"),
        before_index=("pytorch_model.bin",),
        second_copies=("consolidated*.pth",),
        other_suffixes=(".pt", ".pth", ".ckpt"),
    ),
    Kind(".gguf", second_copies=("*mmproj*.gguf", "*imatrix*.gguf")),
)
"""In the order in which they are preferred."""


@dataclass(frozen=True)
class Layout:
    """The weight files to read, the index that names them, and the files left aside with their reasons.

    `weight_map` gives the file of each tensor where there is an index, else None.
    """

    shards: tuple[FileEntry, ...]
    weight_map: dict[str, str] | None
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Choice:
    """Names of the files chosen, the index that names them with its map, and reasons why certain others were not."""

    names: tuple[str, ...]
    reasons: Mapping[str, str]
    index: str = ""
    weight_map: dict[str, str] | None = None


def find_layout(source: Source, folder: str = "") -> Layout:
    """Choose the weight files of a folder, from names alone (and the index, where there is one).

    Args:
        source: where the files are.
        folder: a subfolder of it with a slash at its end; everything else is passed over. Empty for the whole target.

    Raises:
        CheckpointError: the index is broken, leads out of the folder, or a shard is missing.
        UnsafeFileError: there is nothing but bare pickles, or a shard is a link that leads out of the folder.
        UnsupportedError: the weights are in a format that is not read.
        TargetError: there are no weights at all.
    """
    files = {file.name[len(folder) :]: file for file in source.files() if file.name.startswith(folder)}
    all_refused: dict[str, str] = getattr(source, "refused", {})
    refused = {name[len(folder) :]: why for name, why in all_refused.items() if name.startswith(folder)}
    choice = _choose(source, folder, files, refused)
    for name in choice.names:
        if name in refused:
            what = f"the shard that {choice.index} names is" if choice.index else "the weights are"
            raise UnsafeFileError(f"{what} {refused[name]}", file=printable(folder + name), remedy=_COPY)
        if name not in files:
            problem = f"the shard that {choice.index} names is missing"
            raise CheckpointError(problem, file=printable(folder + name), remedy=INCOMPLETE)
    if choice.weight_map is None and source.identity.kind != "file":
        check_complete(choice.names)
    shards = sorted((files[name] for name in choice.names), key=lambda shard: natural_key(shard.name))
    skipped = [
        left_aside(file, name, choice.reasons.get(name))
        for name, file in files.items()
        if name not in choice.names and name.endswith(WEIGHT_SUFFIXES)
    ]
    skipped += [
        Skipped(f"{printable(folder + name)} (file)", reason, "file_not_read") for name, reason in refused.items()
    ]
    return Layout(tuple(shards), choice.weight_map, tuple(skipped))


def root_weights(names: Collection[str], kind: Kind) -> list[str]:
    """Names of weight files of one kind that lie in the folder itself and may be a checkpoint's."""
    return [
        name
        for name in names
        if name.endswith(kind.suffixes)
        and "/" not in name
        and not name.startswith(".")
        and not is_adapter_file(name)
        and not is_training_state(name)
    ]


def _choose(source: Source, folder: str, files: Mapping[str, FileEntry], refused: Mapping[str, str]) -> _Choice:
    where = posixpath.join(source.identity.name, folder.rstrip("/")) if folder else source.identity.name
    if source.identity.kind == "file":
        name = next(name for name in files if posixpath.basename(source.identity.name) == name)
        if is_adapter_file(name) or is_other_format(name):
            refuse_target(source_name=source.identity.name, names=[name])
        return _Choice((name,), {})
    for kind in KINDS:
        choice = _choose_kind(source, folder, kind, files, refused)
        if choice is not None:
            return choice
    if refused and not any("/" in name for name in files):
        name, reason = next(iter(refused.items()))
        raise UnsafeFileError(f"no weights but this, which is {reason}", file=printable(folder + name), remedy=_COPY)
    return refuse_target(source_name=where, names=list(files))


def _choose_kind(
    source: Source, folder: str, kind: Kind, files: Mapping[str, FileEntry], refused: Mapping[str, str]
) -> _Choice | None:
    """The files of one kind that a library would load, or None where there are none."""
    names = root_weights({**files, **refused}, kind)
    first = [name for name in names if not any(fnmatchcase(name, copy) for copy in kind.second_copies)]
    index = _index(kind, {**files, **refused}, first)
    single = next((name for name in kind.singles if name in first), None)
    if index is not None:
        weight_map = _read_map(source, folder, index, files, refused, single if single in kind.before_index else None)
        if weight_map is not None:
            named = tuple(dict.fromkeys(weight_map.values()))
            if wrong := next((name for name in named if not name.endswith(kind.suffixes)), None):
                problem = f"the index names {printable(wrong)}, which is no {kind.suffix} file"
                raise UnsafeFileError(problem, file=printable(folder + index), remedy=TAMPERED)
            places = {tensor: folder + file for tensor, file in weight_map.items()}
            return _Choice(named, _beside_index(first, named), index, places)
    if single is not None:
        return _Choice((single,), _beside_single(single, first, kind))
    if not first:
        copies = [name for name in names if name not in first]
        return _Choice(tuple(copies), {}) if copies else None
    chosen = tuple(name for group in preferred(file_sets(first)) for name in group.names)
    return _Choice(chosen, dict.fromkeys(set(first) - set(chosen), _OTHER_VARIANT))


def _beside_index(names: Sequence[str], named: Collection[str]) -> dict[str, str]:
    """Why the files are not read that the index does not name."""
    stems = {group.stem for group in file_sets(named)}
    groups = [group for group in file_sets(name for name in names if name not in named) if group.stem in stems]
    return {name: _OTHER_VARIANT if group.variant else _UNNAMED for group in groups for name in group.names}


def _beside_single(single: str, names: Sequence[str], kind: Kind) -> dict[str, str]:
    """Why the other files of a single file's stem are not read: another precision, or shards of an earlier save."""
    stem = single.removesuffix(kind.suffix)
    groups = [group for group in file_sets(names) if group.stem == stem]
    return {name: _OTHER_VARIANT if group.variant else _STALE for group in groups for name in group.names}


def _index(kind: Kind, names: Collection[str], weights: Sequence[str]) -> str | None:
    """The index that a library reads unasked: that of the usual stem, without a variant where there is one.

    An index of a variant gives way to weights without one, which the library takes.
    """
    found = []
    for name in names:
        parts = index_parts(name)
        if parts is not None and parts[1] == kind.suffix:
            usual = [single.removesuffix(kind.suffix) for single in kind.singles]
            rank = usual.index(parts[0]) if parts[0] in usual else len(usual)
            found.append((variant_rank(parts[2]), rank, name))
    if not found:
        return None
    found.sort()
    best, rank, name = found[0]
    if len(found) > 1 and found[1][:2] == (best, rank):
        problem = f"there is another index, {printable(found[1][2])}, and nothing says which counts"
        raise CheckpointError(problem, file=printable(name), remedy=_AMBIGUOUS)
    if best > variant_rank(None) and any(group.variant is None for group in file_sets(weights)):
        return None
    return name


def _read_map(
    source: Source,
    folder: str,
    index: str,
    files: Mapping[str, FileEntry],
    refused: Mapping[str, str],
    single: str | None,
) -> dict[str, str] | None:
    """The index' map; None where a single file beside it is what counts.

    A single file that the index itself names is one of the shards (MLX writes an index of one file).
    """
    if index in refused:
        raise UnsafeFileError(f"the index is {refused[index]}", file=printable(folder + index), remedy=_COPY)
    weight_map = read_index(source, files[index])
    return weight_map if single is None or single in weight_map.values() else None
