"""A copy of a checkpoint folder with some entries changed: all else byte for byte, and whole or not there at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint import WeightMatrix
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.listing import list_folder
from llmtrap.errors import OutputError, UnsafeFileError, UnsupportedError
from llmtrap.systems.files import link_or_copy, sync_folder

_DTYPES: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Patch:
    """One entry of one file: where it is, and the bytes it gets."""

    file: str
    offset: int
    before: bytes
    after: bytes


def patch_of(matrix: WeightMatrix, row: int, column: int, before: float, after: float) -> Patch:
    """The change of one entry in the file that stores it.

    Args:
        matrix: of a safetensors file, stored as plain floats.
        row: of the matrix.
        column: of the matrix.
        before: its value, as read.
        after: the new value, rounded to the file's type.

    Raises:
        UnsupportedError: the entry shares its scale with others, or is not stored as it is read.
    """
    entry = matrix.stored.parts[0]
    if len(matrix.stored.parts) > 1 or entry.dtype not in _DTYPES:
        problem = f"stored as {matrix.encoding}: an entry shares its scale with its neighbours"
        raise UnsupportedError(problem, tensor=printable(matrix.tensor), remedy="Restore the tensor from the base")
    if entry.chunks or not entry.span.file.endswith(".safetensors"):
        problem = "only entries of safetensors files can be rewritten"
        raise UnsupportedError(
            problem, file=entry.span.file, tensor=printable(matrix.tensor), remedy="Save the checkpoint as safetensors"
        )
    if matrix.rows is not None or matrix.columns is not None:
        raise UnsupportedError("a part of a fused matrix", tensor=printable(matrix.tensor), remedy="Name the whole one")
    dtype = _DTYPES[entry.dtype]
    flat = ((matrix.index or 0) * matrix.shape[0] + row) * matrix.shape[1] + column
    place = entry.span.start + flat * dtype.itemsize
    return Patch(entry.span.file, place, _bytes(before, dtype), _bytes(after, dtype))


def rounded(value: float, matrix: WeightMatrix) -> float:
    """A value as the matrix' file can hold it."""
    dtype = _DTYPES.get(matrix.stored.parts[0].dtype)
    return value if dtype is None else float(np.asarray(value, dtype=np.float64).astype(dtype).astype(np.float64))


def rewrite(source: Path, out: Path, patches: Sequence[Patch], documents: Mapping[str, bytes]) -> None:
    """Write a copy of a folder with patches applied and documents added; files without a patch become hard links.

    Everything is written into a folder beside `out` and renamed when it is whole and synced. A document takes the
    place of a file of its name.

    Raises:
        OutputError: `out` exists or lies in the source, the disk is full, or an entry is not what was read before.
        UnsafeFileError: the folder holds a link that leads out of it, or what is no file.
    """
    source, out = source.resolve(), out.parent.resolve() / out.name
    if out.exists() or out.is_symlink():
        raise OutputError("this exists already", file=str(out), remedy="Name a new folder")
    if out.resolve().is_relative_to(source):
        raise OutputError("this lies in the checkpoint itself", file=str(out), remedy="Name a folder beside it")
    files = _files_of(source)
    part = out.with_name(f".{out.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        touched = {patch.file for patch in patches}
        for name, path in files.items():
            if name in documents:
                continue  # written through a hard link it would change the source's own
            place = part / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if name in touched:
                shutil.copyfile(path, place)
                _apply(place, [patch for patch in patches if patch.file == name])
            else:
                link_or_copy(path.resolve(), place)
        for name, content in documents.items():
            (part / name).write_bytes(content)
        sync_folder(part)
        part.rename(out)
    except OSError as error:
        raise OutputError(
            f"the copy could not be written ({error.strerror or error})", file=str(out), remedy="Free some space"
        ) from error
    finally:
        if part.exists():
            shutil.rmtree(part, ignore_errors=True)


def _files_of(source: Path) -> dict[str, Path]:
    """Where the files of a checkpoint's folder are, by name.

    A link that leads out of it is no file of the checkpoint: copied, it would put a file of this machine into a folder
    that is made to be passed on.
    """
    listing = list_folder(source)
    for name, reason in listing.refused.items():
        remedy = "Remove it, or put the file itself in its place"
        raise UnsafeFileError(f"not copied: {reason}", file=printable(name, 200), remedy=remedy)
    return {name: Path(path) for name, path in listing.paths.items()}


def _apply(path: Path, patches: Sequence[Patch]) -> None:
    with path.open("r+b") as file:
        for patch in patches:
            file.seek(patch.offset)
            if not _same(file.read(len(patch.before)), patch.before):
                raise OutputError("the file changed since it was read", file=path.name, remedy="Run the command again")
            file.seek(patch.offset)
            file.write(patch.after)
        file.flush()
        os.fsync(file.fileno())


def _same(stored: bytes, read: bytes) -> bool:
    """Whether an entry is what was read: any NaN is as good as another."""
    if stored == read:
        return True
    kinds: dict[int, list[np.dtype[np.generic]]] = {
        8: [_DTYPES["F64"]],
        4: [_DTYPES["F32"]],
        2: [_DTYPES["F16"], _DTYPES["BF16"]],
    }
    return any(_is_nan(stored, kind) and _is_nan(read, kind) for kind in kinds[len(read)])


def _is_nan(data: bytes, dtype: np.dtype[np.generic]) -> bool:
    value: NDArray[np.float64] = np.frombuffer(data, dtype=dtype).astype(np.float64)
    return bool(np.isnan(value[0]))


def _bytes(value: float, dtype: np.dtype[np.generic]) -> bytes:
    return np.asarray(value, dtype=np.float64).astype(dtype).tobytes()
