"""Data sets of strangers: what is encrypted, endless, lying or no file at all costs one clear line."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmtrap.calibrate.data.columns import load_npz, read_parquet
from llmtrap.calibrate.data.idx import read_idx
from llmtrap.calibrate.data.npm import load_npm_tarball
from llmtrap.errors import CheckpointError


def npy(shape: tuple[int, ...], content: bytes) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue() + content


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def encrypted(path: Path) -> None:
    archive(path, images=npy((2, 4), bytes(8)))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of the local header, and that of the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def lying(path: Path) -> None:
    archive(path, images=npy((10**7, 10**7), bytes(8)), labels=npy((2,), bytes(2)))


def bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("images.npy", "w", force_zip64=True) as out,
    ):
        for _ in range(1100):
            out.write(bytes(1 << 20))


def truncated(path: Path) -> None:
    archive(path, images=npy((2, 4), bytes(8)))
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("make", "words"),
    [(encrypted, "encrypted"), (lying, "claims more bytes"), (bomb, "too large"), (truncated, "cannot be read"),
     (os.mkfifo, "not a regular file"), (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
     (lambda path: path.write_bytes(b"PK" * 500), "cannot be read")],
    ids=["encrypted", "lying", "bomb", "truncated", "fifo", "zero", "no zip"],
)  # fmt: skip
def test_npz(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    path = tmp_path / "mnist.npz"
    make(path)
    with pytest.raises(CheckpointError, match=words):
        load_npz(path)


@pytest.mark.parametrize("read", [read_idx, load_npm_tarball])
def test_no_fifo_is_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "data.gz")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(tmp_path / "data.gz")


@pytest.mark.parametrize("size", [50 << 10, 200 << 10])
def test_a_tarball_with_digits_for_a_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "mnist.tgz"
    with gzip.open(path, "wb") as file:
        head = tarfile.TarInfo("a")
        head.type, head.size = tarfile.XHDTYPE, size
        file.write(head.tobuf() + b"0" * size)
    began = time.process_time()
    with pytest.raises(CheckpointError, match="extended header"):
        load_npm_tarball(path)
    assert time.process_time() - began < 10


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "train-0.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_parquet(path)
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_parquet(tmp_path / "x.parquet")
