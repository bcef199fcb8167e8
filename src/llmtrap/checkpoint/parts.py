"""Models of several parts, each a checkpoint in a folder of its own: diffusers pipelines, sentence-transformers models.

What the parts are is told by the library's own list: `model_index.json` of diffusers names a folder for each component,
`modules.json` of sentence-transformers a path for each module, the empty one for the folder itself.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.collection import collection_paused
from llmtrap.checkpoint.config import MAX_CONFIG, read_config
from llmtrap.checkpoint.families import Family
from llmtrap.checkpoint.find import Found, find_matrices
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.missing_layers import missing_experts, missing_layers
from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.checkpoint.refusals import WEIGHT_SUFFIXES, is_training_state, left_aside
from llmtrap.checkpoint.sources.base import ByteRange, Source
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.checkpoint.tensors import Catalogue, Skipped
from llmtrap.errors import CheckpointError, UnsafeFileError

PIPELINE = "model_index.json"
MODULES = "modules.json"

_WEIGHTLESS_COMPONENTS = re.compile(r".*(Scheduler|Tokenizer|TokenizerFast|Processor|Extractor|Guider|Tagger)")
_WEIGHTLESS_MODULES = re.compile(r".*\.(Pooling|Normalize|Dropout|WordWeights|BoW|Asym|Router)")
_MISSING = "Fetch the whole repository, or give the folder of one part as the target"


@dataclass(frozen=True)
class Part:
    """One part: the folder with a slash at its end, and what is put before the names of its matrices."""

    folder: str
    prefix: str


def find_parts(source: Source) -> tuple[Part, ...]:
    """The parts of a model that has several; none where the target is one checkpoint.

    Raises:
        CheckpointError: the list is broken, or names a part whose weights are not there.
    """
    files = {file.name for file in source.files()}
    if PIPELINE in files:
        return _of_pipeline(source, files)
    if MODULES in files:
        return _of_modules(source, files)
    return ()


def open_parts(source: Source, *, split_fused: bool = False, family: Family | None = None) -> Checkpoint:
    """Open a target and find its matrices: one checkpoint, or all parts of a model as one.

    The matrices of a part have its folder before their names: `text_encoder/layers.0.mlp.up`.

    Raises:
        CheckpointError: as `read_catalogue` and `find_parts`.
        TargetError: there are no weights.
    """
    with collection_paused():
        return _opened(source, split_fused=split_fused, family=family)


def _opened(source: Source, *, split_fused: bool, family: Family | None) -> Checkpoint:
    parts = find_parts(source)
    if not parts:
        catalogue = read_catalogue(source)
        found = find_matrices(catalogue, split_fused=split_fused, family=family)
        skipped = (
            *found.skipped,
            *missing_layers(catalogue.config, found.matrices),
            *missing_experts(catalogue.config, found.matrices),
        )
        return Checkpoint(
            source, catalogue, found.matrices, skipped, found.family, unknown=found.unknown, notes=found.notes
        )
    read = [(part, read_catalogue(source, part.folder)) for part in parts]
    found_parts = [(part, one, find_matrices(one, split_fused=split_fused, family=family)) for part, one in read]
    return _joined(source, found_parts)


def _joined(source: Source, parts: list[tuple[Part, Catalogue, Found]]) -> Checkpoint:
    matrices = tuple(_named(matrix, part.prefix) for part, _, found in parts for matrix in found.matrices)
    files = tuple(dict.fromkeys(file for _, catalogue, _ in parts for file in catalogue.files))
    tensors = {
        part.prefix + name: replace(entry, name=part.prefix + name)
        for part, catalogue, _ in parts
        for name, entry in catalogue.tensors.items()
    }
    chosen = {f"{printable(file.name)} (file)" for file in files}
    skipped: dict[str, Skipped] = {}
    for part, catalogue, found in parts:
        of_files = {item.tensor for item in catalogue.skipped}
        for item in found.skipped:
            named = item if item.tensor in of_files else replace(item, tensor=part.prefix + item.tensor)
            if named.tensor not in chosen:
                skipped.setdefault(named.tensor, named)
    folders = tuple(part.folder for part, _, _ in parts)
    for file in source.files():
        if file.name.endswith(WEIGHT_SUFFIXES) and file not in files and not file.name.startswith(folders):
            aside = left_aside(file, file.name, None if "/" in file.name else _WHOLE_COPY)
            skipped.setdefault(aside.tensor, aside)
    metadata = {name: fields for _, catalogue, _ in parts for name, fields in catalogue.metadata.items()}
    config = next((catalogue.config for part, catalogue, _ in parts if not part.prefix), {})
    whole = Catalogue(source.identity, tensors, files, config, tuple(skipped.values()), metadata=metadata)
    families = dict.fromkeys(found.family for _, _, found in parts)
    return Checkpoint(
        source, whole, matrices, tuple(skipped.values()), ", ".join(families),
        unknown=tuple(part.prefix + name for part, _, found in parts for name in found.unknown),
        notes=tuple(part.prefix + note for part, _, found in parts for note in found.notes),
    )  # fmt: skip


_WHOLE_COPY = "beside the parts, so the whole pipeline in one file or another copy; the parts are audited"


def _named(matrix: WeightMatrix, prefix: str) -> WeightMatrix:
    if not prefix:
        return matrix
    stored = matrix.stored
    entries = tuple(replace(entry, name=prefix + entry.name) for entry in stored.parts)
    named = replace(stored, name=prefix + stored.name, module=prefix + stored.module, parts=entries)
    aliases = tuple(prefix + alias for alias in matrix.aliases)
    return replace(matrix, id=prefix + matrix.id, stored=named, aliases=aliases)


def _of_pipeline(source: Source, files: set[str]) -> tuple[Part, ...]:
    components = {
        name: value[1]
        for name, value in read_config(source, PIPELINE).items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
    }
    with_weights = {name.partition("/")[0] for name in files if name.count("/") == 1 and _is_weight(name)}
    for name, kind in components.items():
        if name not in with_weights and not _WEIGHTLESS_COMPONENTS.fullmatch(kind):
            raise _missing(source, name, f"{PIPELINE} names the part {printable(name)!r} ({printable(kind, 80)})")
    names = [name for name in with_weights if not components or name in components]
    return tuple(Part(f"{name}/", f"{name}/") for name in sorted(names, key=natural_key))


def _of_modules(source: Source, files: set[str]) -> tuple[Part, ...]:
    parts = []
    for number, module in enumerate(_modules(source)):
        path, kind = module.get("path", ""), str(module.get("type", ""))
        folder = path if isinstance(path, str) else ""
        if folder and (posixpath.normpath(folder) != folder.rstrip("/") or folder.startswith(("/", ".."))):
            raise UnsafeFileError(f"{MODULES} names the folder {printable(folder)!r}, no plain path", file=MODULES)
        folder = f"{folder.rstrip('/')}/" if folder else ""
        if any(_is_weight(name) for name in files if posixpath.dirname(name) == folder.rstrip("/")):
            parts.append(Part(folder, "" if number == 0 else folder))
        elif not _WEIGHTLESS_MODULES.fullmatch(kind):
            what = f"{MODULES} names the part {printable(folder or 'in the folder itself')!r} ({printable(kind, 80)})"
            raise _missing(source, folder.rstrip("/"), what)
    return tuple(parts)


def _modules(source: Source) -> list[dict[str, Any]]:
    """The list of modules; a JSON array, which is read as an object's only value."""
    file = next(file for file in source.files() if file.name == MODULES)
    if file.size > MAX_CONFIG:
        raise CheckpointError(f"{file.size} bytes are too many for a list of modules", file=MODULES)
    data = source.read(ByteRange(MODULES, 0, file.size))
    wrapped = np.concatenate([_bytes(b'{"modules":'), data, _bytes(b"}")])
    modules = read_object(wrapped, file=MODULES, what="list of modules")["modules"]
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError("no list of modules", file=MODULES, remedy="Save the model again with its own library")
    return modules


def _bytes(text: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(text, np.uint8)


def _is_weight(name: str) -> bool:
    base = posixpath.basename(name)
    return base.endswith(WEIGHT_SUFFIXES) and not is_training_state(base) and not base.startswith(".")


def _missing(source: Source, folder: str, problem: str) -> CheckpointError:
    refused: dict[str, str] = getattr(source, "refused", {})
    if folder in refused:
        return UnsafeFileError(f"{problem}, which is {refused[folder]}", file=printable(folder), remedy=_MISSING)
    return CheckpointError(f"{problem}, and there are no weights of it", file=printable(folder), remedy=_MISSING)
