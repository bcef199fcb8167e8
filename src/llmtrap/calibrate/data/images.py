"""Sets of labelled grey images: where they are found, read, and brought to one form."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.data.readers import Labelled, idx_pair, read_idx, read_parquet
from llmtrap.errors import AccessError, CheckpointError, MissingExtraError, TargetError, UsageError

HUB = "hub"
CLASSES = 10
_REPOSITORY = "ylecun/mnist"
_HUB_FILES = ("mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet")
_MAX_IMAGES = 1_000_000
_SQUARES = frozenset(side * side for side in range(2, 257))


@dataclass(frozen=True)
class ImageSet:
    """Grey images [n, side²] in [0, 1] with labels 0 to 9, and the source's own test set where it has one."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    source: str
    held_out: ImageSet | None = None

    @property
    def side(self) -> int:
        """Width and height of an image in pixels."""
        return math.isqrt(int(self.pixels.shape[1]))


def image_set(read: Labelled, file: str, source: str, held_out: ImageSet | None = None) -> ImageSet:
    """Check what a reader gave, and bring it to one form.

    Args:
        read: images [n, side, side] or [n, side²], integers 0 to 255 or floats 0 to 1; labels [n], integers 0 to 9.
        file: the file to name in an error.
        source: description for the report.
        held_out: the source's own test set.

    Raises:
        CheckpointError: shapes do not fit, or values are out of range.
    """
    pixels, labels = read
    pixels = pixels.reshape(len(pixels), -1) if pixels.ndim == 3 else pixels
    problem = None
    if pixels.ndim != 2 or labels.ndim != 1 or len(pixels) != len(labels):
        problem = f"images of shape {pixels.shape} do not fit labels of shape {labels.shape}"
    elif not 0 < len(pixels) <= _MAX_IMAGES or pixels.shape[1] not in _SQUARES:
        problem = f"{len(pixels)} images of {pixels.shape[1]} pixels are not usable"
    elif pixels.dtype.kind not in "uif" or labels.dtype.kind not in "ui":
        problem = f"images are {pixels.dtype} and labels {labels.dtype}"
    else:
        grey = pixels.astype(np.float32) / np.float32(255 if pixels.dtype.kind in "ui" else 1)
        if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 1:
            problem = "pixels are outside 0 to 1 (or 0 to 255)"
        elif labels.min() < 0 or labels.max() >= CLASSES:
            problem = "labels are outside 0 to 9"
        else:
            return ImageSet(grey, labels.astype(np.int64), source, held_out)
    remedy = "Give a set of grey square images of digits with labels 0 to 9, such as MNIST"
    raise CheckpointError(problem, file=file, remedy=remedy)


def cache_folder() -> Path:
    """Where llmtrap looks for MNIST unasked: `mnist` in its folder of the user's cache (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmtrap" / "mnist"


def mnist_at_hand() -> str | None:
    """The place of an MNIST that can be used without a request: llmtrap's cache folder, or the hub's cache."""
    folder = cache_folder()
    if idx_pair(folder, "train") or any(folder.glob("train-*.parquet")):
        return str(folder)
    try:
        _hub(local_only=True)
    except (AccessError, MissingExtraError):
        return None
    return HUB


def check_data(task: str, data: str | None) -> str | None:
    """Where the images of a task are, without reading them; None for a task that needs no file.

    Raises:
        TargetError: there is no such file.
        UsageError: MNIST is asked for and none is at hand, or data is given for a task that takes none.
    """
    if task != "mnist":
        if data is not None:
            source = "come with scikit-learn" if task == "digits" else "are computed"
            raise UsageError(f"the data of {task} {source}", remedy="Leave out --data, or use --task mnist")
        return None
    place = data or mnist_at_hand()
    if place is None:
        put = f"Put its IDX files into {cache_folder()}, give --data FOLDER or hub"
        raise UsageError("no MNIST is at hand", remedy=f"{put}, or use --task digits, which needs no data")
    if place != HUB and not Path(place).expanduser().exists():
        raise TargetError("no such file or folder", file=place)
    return place


def load_images(task: str, data: str | None) -> ImageSet:
    """The image set of a task.

    Args:
        task: "mnist" or "digits".
        data: for MNIST a file, a folder, or "hub"; None takes what is at hand.

    Raises:
        TargetError: there is no such file, or it is of no known form.
        UsageError: MNIST is asked for and none is at hand, or data is given for the digits.
    """
    place = check_data(task, data)
    if place is None:
        return _digits()
    if place == HUB:
        return _parquet(_hub(local_only=data is None), f"hub dataset {_REPOSITORY}")
    path = Path(place).expanduser()
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() or "idx" in path.name) and (train := idx_pair(folder, "train")) is not None:
        source, test = f"IDX files in {folder.name}", idx_pair(folder, "t10k")
        parts = [((read_idx(pair[0]), read_idx(pair[1])), str(pair[0])) for pair in (test, train) if pair is not None]
        held_out = image_set(*parts[0], source) if test is not None else None
        return image_set(*parts[-1], source, held_out)
    if path.is_dir():
        files = [sorted(path.rglob(f"{part}-*.parquet"))[:1] for part in ("train", "test")]
        if not files[0]:
            remedy = "Give a folder of IDX files (train-images-idx3-ubyte and the like) or of train-*.parquet"
            raise CheckpointError("has neither IDX nor Parquet files", file=str(path), remedy=remedy)
        return _parquet([*files[0], *files[1]], f"Parquet files in {path.name}")
    if path.suffix == ".parquet":
        return _parquet([path], f"Parquet file {path.name}")
    raise TargetError(
        "is no set of images that llmtrap reads",
        file=str(path),
        remedy="Give a folder of IDX files (train-images-idx3-ubyte and the like), a .parquet, or hub",
    )


def _parquet(files: list[Path], source: str) -> ImageSet:
    """A training set, and a test set where there is a second file."""
    held_out = image_set(read_parquet(files[1]), str(files[1]), source) if len(files) > 1 else None
    return image_set(read_parquet(files[0]), str(files[0]), source, held_out)


def _hub(*, local_only: bool) -> list[Path]:
    """Training and test file of MNIST from the Hugging Face hub, or from its cache alone.

    Raises:
        AccessError: not in the cache, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    try:
        return [
            Path(hf_hub_download(_REPOSITORY, name, repo_type="dataset", local_files_only=local_only))
            for name in _HUB_FILES
        ]
    except Exception as error:
        # The client raises its own, requests' and httpx' errors here, which share no base but Exception.
        remedy = "Check the network, or give a folder of IDX or Parquet files with --data"
        file = f"hub dataset {_REPOSITORY}"
        raise AccessError(f"cannot be fetched: {error}", file=file, remedy=remedy) from error


def _digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError.of("the digits task", "calibrate") from error
    bunch = load_digits()
    source = f"scikit-learn's bundled 8×8 digits ({len(bunch.target):,} images; not MNIST)"
    return image_set(((bunch.data / 16.0).astype(np.float32), bunch.target), "scikit-learn digits", source)
