"""Data sets of strangers: what is encrypted, endless, lying or no file at all costs one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from llmtrap.calibrate.data.images import load_images
from llmtrap.calibrate.data.readers import read_idx, read_parquet
from llmtrap.errors import CheckpointError, TargetError


def test_no_fifo_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.gz")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_idx(tmp_path / "data.gz")


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "train-0.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_parquet(path)
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_parquet(tmp_path / "x.parquet")


def test_an_encrypted_archive_is_no_set_of_images(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=np.zeros((1, 28, 28), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"PK\x03\x04\x2d\x00\x00", b"PK\x03\x04\x2d\x00\x01"))
    with pytest.raises(TargetError, match="no set of images that llmtrap reads"):
        load_images("mnist", str(path))
