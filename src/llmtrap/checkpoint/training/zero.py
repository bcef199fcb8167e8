"""Training checkpoints of DeepSpeed's ZeRO: `latest` names a folder of one step, each process wrote a part of it.

Stages 1 and 2: `mp_rank_00_model_states.pt` holds the whole weights under `module`. Stage 3: every process holds a
slice of each parameter, in float32, in `*_optim_states.pt`; the shapes are in `*_model_states.pt`. A parameter's
elements are cut into equal runs, the last padded; process r has run r, and its runs follow one another in its flat
groups (as DeepSpeed's own zero_to_fp32.py puts them together).
"""

from __future__ import annotations

import math
import posixpath
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmtrap.checkpoint.containers.base import FIRST_READ, MAX_TENSORS, OpenFile
from llmtrap.checkpoint.containers.pytorch import read_saved
from llmtrap.checkpoint.containers.pytorch.places import StoragePlace, place
from llmtrap.checkpoint.containers.pytorch.values import Tensor
from llmtrap.checkpoint.names import MAX_NAME, encodable, natural_key, printable
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry, Source
from llmtrap.checkpoint.strict_text import read_line
from llmtrap.checkpoint.tensors import Chunk, FileContents, Skipped, TensorEntry
from llmtrap.checkpoint.training.boxes import boxes, covers, strides
from llmtrap.errors import CheckpointError, UnsupportedError

LATEST = "latest"
_MODEL_STATES = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
_OPTIM_STATES = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
_CONVERT = "Convert it with the zero_to_fp32.py that DeepSpeed put into the folder: python zero_to_fp32.py . OUT"
_INCOMPLETE = "Fetch the files of all processes into the checkpoint's folder"


@dataclass(frozen=True)
class _Saved:
    """What torch.save wrote into one file, and where its tensors' numbers lie."""

    file: str
    value: dict[str, Any]
    places: dict[str, StoragePlace]

    def entry(self, name: str, tensor: Tensor) -> TensorEntry:
        """The place of one of its tensors."""
        placed = place(name, tensor, self.places, self.file)
        if isinstance(placed, Skipped) or placed.chunks:
            raise CheckpointError("a flat group that does not lie in one piece", file=self.file, remedy=_CONVERT)
        return placed


def is_part(name: str) -> bool:
    """Whether a file is one process' part, by its name."""
    return _groups(name) is not None


def is_zero(source: Source, folder: str = "") -> bool:
    """Whether a folder is a training checkpoint of DeepSpeed's: one step's folder, or what holds them and `latest`."""
    return _step_folder(source, folder) is not None


def read_zero(source: Source, folder: str = "") -> tuple[FileContents, tuple[FileEntry, ...]]:
    """The weights of a checkpoint of any stage, and the files that hold them.

    Raises:
        CheckpointError: a process' file is missing, or the shapes do not fit the slices.
        UnsafeFileError: a file names a function that no state dict needs.
        UnsupportedError: tensor-parallel slices, or a layout of another version.
    """
    step = _step_folder(source, folder)
    if step is None:
        raise CheckpointError("no checkpoint of DeepSpeed", file=source.identity.name)
    files = {file.name[len(step) :]: file for file in source.files() if posixpath.dirname(file.name) == step[:-1]}
    models = sorted((name for name in files if _MODEL_STATES.fullmatch(name)), key=natural_key)
    optims = sorted((name for name in files if _OPTIM_STATES.fullmatch(name)), key=natural_key)
    if len({found[2] for name in (*models, *optims) if (found := _groups(name))}) > 1:
        problem = "a checkpoint of tensor-parallel slices (several mp_rank)"
        raise UnsupportedError(problem, file=files[models[0]].name, remedy=_CONVERT)
    model = _load(source, files[models[0]])
    module = model.value.get("module")
    whole = isinstance(module, dict) and all(0 not in t.shape for t in module.values() if isinstance(t, Tensor))
    if whole and isinstance(module, dict) and any(isinstance(t, Tensor) for t in module.values()):
        return _whole(model, module, files, models[:1], optims)
    ranks = [_load(source, files[name]) for name in optims]
    _check_ranks([_rank(name) for name in optims], model, ranks)
    tensors = [*_buffers(model), *_joined(model, ranks)]
    if len({entry.name for entry in tensors}) != len(tensors) or len(tensors) > MAX_TENSORS:
        raise CheckpointError("a parameter is named twice", file=model.file, remedy=_CONVERT)
    used = {model.file, *(rank.file for rank in ranks)}
    return FileContents(tuple(tensors)), tuple(file for file in files.values() if file.name in used)


def _step_folder(source: Source, folder: str) -> str | None:
    """The folder of the step, with a slash at its end: the one given, or the one that `latest` in it names."""
    folders = {posixpath.dirname(file.name) for file in source.files() if _groups(posixpath.basename(file.name))}
    here = folder.rstrip("/")
    if here in folders:
        return folder
    latest = next((file for file in source.files() if file.name == f"{folder}{LATEST}"), None)
    if latest is None:
        return None
    named = posixpath.join(here, read_line(source, latest))
    return f"{named}/" if named in folders else None


def _groups(name: str) -> re.Match[str] | None:
    return _MODEL_STATES.fullmatch(name) or _OPTIM_STATES.fullmatch(name)


def _rank(name: str) -> int:
    found = _OPTIM_STATES.fullmatch(name)
    return int(found[1]) if found else 0


def _load(source: Source, entry: FileEntry) -> _Saved:
    head = source.read(ByteRange(entry.name, 0, min(entry.size, FIRST_READ)))
    saved, places = read_saved(OpenFile(source, entry, head, threading.Lock()))
    if not isinstance(saved, dict):
        raise CheckpointError("it holds no dictionary of a training state", file=entry.name, remedy=_CONVERT)
    return _Saved(entry.name, saved, places)


def _whole(
    model: _Saved, module: dict[str, Any], files: dict[str, FileEntry], used: Sequence[str], aside: Sequence[str]
) -> tuple[FileContents, tuple[FileEntry, ...]]:
    entries: list[TensorEntry] = []
    skipped: list[Skipped] = []
    for name, tensor in module.items():
        if isinstance(name, str) and isinstance(tensor, Tensor):
            placed = place(name, tensor, model.places, model.file)
            if isinstance(placed, TensorEntry):
                entries.append(placed)
            else:
                skipped.append(placed)
    reason = "state of a training run, not weights; never opened"
    skipped += [
        Skipped(f"{files[name].name} (file)", reason, "file_not_read", bytes=files[name].size) for name in aside
    ]
    return FileContents(tuple(entries), {}, tuple(skipped)), tuple(files[name] for name in used)


def _check_ranks(ranks: list[int], model: _Saved, saved: Sequence[_Saved]) -> None:
    """Refuse where a process' file is missing."""
    if not saved:
        problem = "its weights are empty, and the processes' *_optim_states.pt, which hold them, are not here"
        raise CheckpointError(problem, file=model.file, remedy=_INCOMPLETE)
    stated = _optimizer(saved[0]).get("partition_count")
    size = max(stated) if isinstance(stated, list) and stated and all(type(n) is int for n in stated) else stated
    count = size if type(size) is int and 0 < size < 1 << 20 else len(ranks)
    if ranks != list(range(count)):
        missing = sorted(set(range(count)) - set(ranks))
        problem = f"of {count} processes that of rank {missing[0]} is missing" if missing else "a rank is there twice"
        raise CheckpointError(problem, file=model.file, remedy=_INCOMPLETE)


def _optimizer(saved: _Saved) -> dict[str, Any]:
    """The state that holds the flat groups."""
    state = saved.value.get("optimizer_state_dict")
    if not isinstance(state, dict):
        raise CheckpointError("it holds no optimizer_state_dict", file=saved.file, remedy=_CONVERT)
    return state


def _buffers(model: _Saved) -> Iterator[TensorEntry]:
    names, module = model.value.get("buffer_names"), model.value.get("module")
    if not isinstance(names, list) or not isinstance(module, dict):
        return
    for name in names:
        tensor = module.get(name) if isinstance(name, str) else None
        if isinstance(tensor, Tensor) and isinstance(
            placed := place(name, tensor, model.places, model.file), TensorEntry
        ):
            yield placed


def _joined(model: _Saved, ranks: Sequence[_Saved]) -> Iterator[TensorEntry]:
    """Every parameter, of the runs that the processes hold: the trained ones, then the frozen."""
    groups = model.value.get("param_shapes")
    shapes = [group for group in groups if isinstance(group, dict)] if isinstance(groups, list) else []
    if not shapes:
        raise UnsupportedError("a layout of ZeRO without param_shapes", file=model.file, remedy=_CONVERT)
    flat = [_Flat(rank, _optimizer(rank).get("fp32_flat_groups")) for rank in ranks]
    at = 0
    for group in shapes:
        for name, shape in group.items():
            numbers = _size(model, name, shape)
            run = -(-numbers // len(ranks))
            runs = [list(one.pieces(at, min(run, max(0, numbers - k * run)))) for k, one in enumerate(flat)]
            yield _entry(model, name, shape, [(k * run, pieces) for k, pieces in enumerate(runs)], flat)
            at += run
    if model.value.get("frozen_param_shapes"):
        problem = "ZeRO-3 with frozen parameters, whose fragments are kept apart"
        raise UnsupportedError(problem, file=model.file, remedy=_CONVERT)


class _Flat:
    """The flat groups of one process, one after the other, as one run of numbers."""

    def __init__(self, saved: _Saved, groups: Any):
        self.file = saved.file
        tensors = groups if isinstance(groups, list) else [groups]
        if not tensors or not all(isinstance(tensor, Tensor) and len(tensor.shape) == 1 for tensor in tensors):
            problem = "a layout of ZeRO without flat groups in float32"
            raise UnsupportedError(problem, file=saved.file, remedy=_CONVERT)
        self.entries = [saved.entry(f"fp32_flat_groups.{k}", tensor) for k, tensor in enumerate(tensors)]
        self.dtype = self.entries[0].dtype

    def pieces(self, start: int, count: int) -> Iterator[ByteRange]:
        """The ranges of numbers [start, start + count)."""
        width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(self.dtype, 0)
        at, stop = 0, start + count
        for entry in self.entries:
            first, last = max(start, at), min(stop, at + entry.size)
            if first < last:
                place = entry.span.start - at * width
                yield ByteRange(entry.span.file, place + first * width, place + last * width)
            at += entry.size
        if at < stop or not width:
            problem = f"its flat groups have {at} numbers, and the parameters take more"
            raise CheckpointError(problem, file=self.file, remedy=_CONVERT)


def _size(model: _Saved, name: Any, shape: Any) -> int:
    fits = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    if not isinstance(name, str) or len(name) > MAX_NAME or not encodable(name) or not fits:
        problem = f"the shape of {printable(str(name), 80)} is none"
        raise CheckpointError(problem, file=model.file, remedy=_CONVERT)
    return math.prod(shape)


def _entry(
    model: _Saved, name: str, shape: tuple[int, ...], runs: list[tuple[int, list[ByteRange]]], flat: Sequence[_Flat]
) -> TensorEntry:
    """One parameter: the runs cut into boxes, since a run may end within a row."""
    dtype = flat[0].dtype
    width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}[dtype]
    chunks: list[Chunk] = []
    for first, pieces in runs:
        at = first
        for piece in pieces:
            start = piece.start
            count = piece.size // width
            for offsets, size in boxes(shape, at, at + count):
                stop = start + math.prod(size) * width
                chunks.append(Chunk(offsets, size, strides(size), ByteRange(piece.file, start, stop)))
                start = stop
            at += count
    if any(one.dtype != dtype for one in flat) or not (covers(shape, chunks) or 0 in shape):
        problem = f"the processes' slices do not make up its shape {list(shape)}"
        raise CheckpointError(problem, file=model.file, tensor=printable(name), remedy=_CONVERT)
    span = chunks[0].span if chunks else ByteRange(model.file, 0, 0)
    return TensorEntry(name, dtype, shape, span, tuple(chunks) if len(chunks) > 1 else ())
