"""Meta's model-parallel files: `consolidated.00.pth` to `consolidated.NN.pth` hold slices of every matrix.

All files name all tensors. Projections that make heads or hidden units are cut by rows, those that take them by
columns, as fairscale's ColumnParallelLinear and RowParallelLinear do; vectors are repeated. An embedding is cut by
columns up to Llama 2 and by rows from Llama 3 on: what makes the model's width says which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Chunk, FileContents, TensorEntry
from llmtrap.errors import CheckpointError, UnsupportedError

_PART = re.compile(r"(?:.*/)?consolidated\.(\d{1,4})\.pth")
_ROWS = re.compile(r"(?:.*\.)?(?:wq|wk|wv|wqkv|w1|w3|output)\.(?:weight|bias)")
_COLUMNS = re.compile(r"(?:.*\.)?(?:wo|w2)\.weight")
_EMBEDDING = re.compile(r"(?:.*\.)?tok_embeddings\.weight")
_WIDTH = re.compile(r"(?:.*\.)?norm\.weight")
_CONVERT = "Convert it with the script of transformers (convert_llama_weights_to_hf.py) and audit the result"


def is_parallel(names: Sequence[str]) -> bool:
    """Whether these files are the slices of one model: several, numbered from 0 on.

    Raises:
        CheckpointError: a number is missing.
    """
    numbers = sorted(int(found[1]) for name in names if (found := _PART.fullmatch(name)))
    if len(numbers) < 2 or len(numbers) != len(names):
        return False
    if numbers != list(range(len(numbers))):
        missing = next(k for k, number in enumerate(numbers) if k != number)
        problem = f"slice {missing} of a model-parallel checkpoint is missing"
        raise CheckpointError(problem, file=names[0], remedy="Fetch the missing file into the checkpoint's folder")
    return True


def check_whole(contents: FileContents, name: str) -> None:
    """Refuse one slice of a model-parallel checkpoint that was given alone: its matrices are parts of matrices.

    Raises:
        CheckpointError: by its number, or because fewer rows are in q than the model is wide.
    """
    found = _PART.fullmatch(name)
    if found is None:
        return
    entries = {entry.name: entry.shape for entry in contents.tensors}
    width = next((shape[0] for key, shape in entries.items() if _WIDTH.fullmatch(key) and shape), None)
    rows = next((shape[0] for key, shape in entries.items() if key.endswith("attention.wq.weight") and shape), None)
    if int(found[1]) or (width and rows and rows < width and width % rows == 0):
        problem = "this is one slice of a model-parallel checkpoint, whose matrices are cut up over several files"
        raise CheckpointError(problem, file=name, remedy="Give the folder that holds all consolidated.NN.pth")


def join_parallel(parts: Sequence[FileContents]) -> FileContents:
    """The tensors that the slices make together, each of chunks in several files.

    Args:
        parts: the contents of the files, in the order of their numbers.

    Raises:
        CheckpointError: the files do not name the same tensors, or their shapes do not fit.
        UnsupportedError: a matrix of which no rule says how it was cut.
    """
    first, *others = ({entry.name: entry for entry in part.tensors} for part in parts)
    for other in others:
        if unpaired := next(iter(first.keys() ^ other.keys()), None):
            where = first.get(unpaired) or other[unpaired]
            problem = "the other slices of this model-parallel checkpoint do not have it"
            remedy = "The files are of different checkpoints: fetch them again"
            raise CheckpointError(problem, file=where.span.file, tensor=printable(unpaired), remedy=remedy)
    width = next((entry.shape[0] for name, entry in first.items() if _WIDTH.fullmatch(name) and entry.shape), None)
    joined = (_join([entry, *(other[name] for other in others)], width) for name, entry in first.items())
    skipped = tuple(item for part in parts for item in part.skipped)
    return FileContents(tuple(joined), parts[0].metadata, skipped)


def _join(slices: list[TensorEntry], width: int | None) -> TensorEntry:
    first = slices[0]
    axis = _axis(first, len(slices), width)
    if axis is None:
        if any((part.shape, part.dtype) != (first.shape, first.dtype) for part in slices):
            raise _misfit(first, "is repeated in every slice, but not with the same shape")
        return first
    across = first.shape[:axis], first.shape[axis + 1 :]
    if any((part.dtype, part.shape[:axis], part.shape[axis + 1 :]) != (first.dtype, *across) for part in slices):
        raise _misfit(first, "does not have the same shape in every slice")
    chunks: list[Chunk] = []
    place = 0
    for part in slices:
        offsets = tuple(place if k == axis else 0 for k in range(len(part.shape)))
        chunks += [_moved(chunk, offsets) for chunk in part.chunks or (_whole(part),)]
        place += part.shape[axis]
    shape = (*across[0], place, *across[1])
    return replace(first, shape=shape, chunks=tuple(chunks))


def _axis(entry: TensorEntry, count: int, width: int | None) -> int | None:
    """The axis that was cut; None for what every slice holds whole."""
    name, shape = entry.name, entry.shape
    if _ROWS.fullmatch(name):
        return 0
    if len(shape) < 2:
        return None
    if _COLUMNS.fullmatch(name):
        return 1
    if _EMBEDDING.fullmatch(name) and width is not None and width in (shape[1], shape[1] * count):
        return 0 if shape[1] == width else 1
    problem = "no rule says how this matrix was cut into the files of a model-parallel checkpoint"
    raise UnsupportedError(problem, file=entry.span.file, tensor=printable(name), remedy=_CONVERT)


def _whole(entry: TensorEntry) -> Chunk:
    strides = [1]
    for size in entry.shape[:0:-1]:
        strides.append(strides[-1] * size)
    return Chunk((0,) * len(entry.shape), entry.shape, tuple(reversed(strides)), entry.span)


def _moved(chunk: Chunk, by: tuple[int, ...]) -> Chunk:
    return replace(chunk, offsets=tuple(a + b for a, b in zip(chunk.offsets, by, strict=True)))


def _misfit(entry: TensorEntry, problem: str) -> CheckpointError:
    remedy = "The files are of different checkpoints: fetch them again"
    return CheckpointError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=remedy)
