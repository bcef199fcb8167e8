"""Copies of real checkpoints with something wrong, or harmlessly different, in one or many matrices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.demo.mxfp4 import dequantise, quantise

Floats = NDArray[np.float32]
Edit = Callable[[Floats], Floats]

DTYPES = {"F32": np.dtype("<f4"), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype("<f2")}


def copy_of(folder: Path, to: Path) -> Path:
    """A copy. Of hard links an audit of the original, in a test at the same time, would see the time of change move."""
    to.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        shutil.copyfile(file, to / file.name)
    return to


def tensors(folder: Path) -> dict[str, tuple[Path, str, tuple[int, ...], int, int]]:
    """File, dtype, shape and byte range of every tensor."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                found[name] = (file, entry["dtype"], tuple(entry["shape"]), 8 + length + start, 8 + length + stop)
    return found


def edit(folder: Path, name: str, change: Edit) -> None:
    """Change one tensor of a copy, in its own storage format; its file is no link afterwards."""
    file, dtype, shape, start, stop = tensors(folder)[name]
    with file.open("r+b") as stream:
        stream.seek(start)
        values = np.frombuffer(stream.read(stop - start), dtype=DTYPES[dtype]).reshape(shape).astype(np.float32)
        new = change(values.copy()).astype(DTYPES[dtype])
        assert new.shape == shape
        stream.seek(start)
        stream.write(new.tobytes())


def edit_mxfp4(folder: Path, name: str, expert: int, change: Edit) -> None:
    """Change one expert of a stack in MXFP4: decoded, changed, and quantised again where it changed."""
    blocks, scales = (tensors(folder)[f"{name}_{part}"] for part in ("blocks", "scales"))
    decoded = read_mxfp4(folder, name, expert)
    new_blocks, new_scales = quantise(change(decoded.copy()))
    for (file, _, shape, start, _), new in ((blocks, new_blocks), (scales, new_scales)):
        size = int(np.prod(shape[1:]))
        assert new.size == size
        with file.open("r+b") as stream:
            stream.seek(start + expert * size)
            stream.write(np.ascontiguousarray(new).tobytes())


def read_mxfp4(folder: Path, name: str, expert: int) -> Floats:
    """One expert of a stack, decoded."""
    parts = []
    for part in ("blocks", "scales"):
        file, _, shape, start, stop = tensors(folder)[f"{name}_{part}"]
        parts.append(np.fromfile(file, dtype=np.uint8, count=stop - start, offset=start).reshape(shape)[expert])
    return dequantise(*parts)


def break_scale(folder: Path, name: str, expert: int) -> None:
    """Make one scale of an expert in MXFP4 the code for NaN."""
    file, _, shape, start, _ = tensors(folder)[f"{name}_scales"]
    with file.open("r+b") as stream:
        stream.seek(start + expert * int(np.prod(shape[1:])) + 5)
        stream.write(b"\xff")


def drop(folder: Path, name: str) -> None:
    """Delete a shard."""
    (folder / name).unlink()


def one_entry(times: float, row: int = 7, column: int = 11) -> Edit:
    """Plant one entry of so many times the limit s(NM)^¼ of a single entry, s over the bulk."""

    def change(matrix: Floats) -> Floats:
        matrix[row, column] = matrix.mean() + times * bulk_deviation(matrix) * matrix.size**0.25
        return matrix

    return change


def bulk_deviation(matrix: Floats) -> float:
    """Deviation of the entries within the limit of a single entry, settled by repetition."""
    centred = matrix.astype(np.float64).ravel() - matrix.mean()
    limit = np.inf
    for _ in range(20):
        kept = centred[np.abs(centred) <= limit]
        limit = kept.std() * matrix.size**0.25
    return float(kept.std())


def mean_shift(times: float) -> Edit:
    """Move all entries by so many times the limit s(NM)^(−¼) of a mean."""
    return lambda matrix: matrix + np.float32(times * bulk_deviation(matrix) * matrix.size**-0.25)


def large_block(side: int, times: float, seed: int = 5) -> Edit:
    """Give a block of rows and columns entries of so many times the limit of a single entry, with random signs."""

    def change(matrix: Floats) -> Floats:
        signs = np.random.default_rng(seed).choice(np.float32([-1, 1]), size=(side, side))
        matrix[:side, :side] = signs * np.float32(times * bulk_deviation(matrix) * matrix.size**0.25)
        return matrix

    return change


def not_a_number(row: int = 3, column: int = 5) -> Edit:
    """Make one entry NaN."""

    def change(matrix: Floats) -> Floats:
        matrix[row, column] = np.nan
        return matrix

    return change


def scaled(factor: float) -> Edit:
    """Multiply a layer."""
    return lambda matrix: matrix * np.float32(factor)


def replaced_by_noise(seed: int = 9) -> Edit:
    """A fresh matrix of the same mean and deviation."""

    def change(matrix: Floats) -> Floats:
        rng = np.random.default_rng(seed)
        return (matrix.mean() + matrix.std() * rng.standard_normal(matrix.shape)).astype(np.float32)

    return change


def small_noise(share: float, seed: int) -> Edit:
    """Noise of this share of the deviation on every entry."""

    def change(matrix: Floats) -> Floats:
        noise = np.random.default_rng(seed).standard_normal(matrix.shape).astype(np.float32)
        return matrix + np.float32(share * matrix.std()) * noise

    return change


def rounded() -> Edit:
    """Round every entry to bfloat16."""
    return lambda matrix: matrix.astype(ml_dtypes.bfloat16).astype(np.float32)


def low_rank(share: float, rank: int, seed: int) -> Edit:
    """Add a random update of this rank, as a merged LoRA does: this share of the matrix's Frobenius norm."""

    def change(matrix: Floats) -> Floats:
        rng = np.random.default_rng(seed)
        update = rng.standard_normal((matrix.shape[0], rank)) @ rng.standard_normal((rank, matrix.shape[1]))
        update *= share * np.linalg.norm(matrix) / np.linalg.norm(update)
        return matrix + update.astype(np.float32)

    return change
