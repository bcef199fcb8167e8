"""MNIST as Parquet, the form in which the Hugging Face hub keeps it; needs pyarrow and Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.data.images import ImageSet, image_set
from llmtrap.documents import DocumentError, open_document
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError, MissingExtraError
from llmtrap.printable import printable

HUB_REPOSITORY = "ylecun/mnist"
_HUB_FILES = ("mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet")
_MAX_BYTES = 1 << 30
_MAX_PNG_BYTES = 1 << 20
_MAX_ROWS = 1_000_000


def read_parquet(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of a Parquet file whose column `image` holds PNG bytes and whose column `label` the digit.

    Raises:
        MissingExtraError: pyarrow or Pillow is not installed.
        CheckpointError: the file is damaged or has other columns.
    """
    try:
        import pyarrow.parquet as parquet
        from PIL import Image
        from pyarrow import ArrowException
    except ImportError as error:
        raise MissingExtraError(
            "reading Parquet needs pyarrow and Pillow", remedy="Install them with: pip install pyarrow pillow"
        ) from error
    try:
        with open_document(path, _MAX_BYTES, "data set") as stream:
            held = parquet.ParquetFile(stream)
            groups = [held.metadata.row_group(number) for number in range(held.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            if held.metadata.num_rows > _MAX_ROWS or not 0 <= size <= _MAX_BYTES:
                problem = f"holds {held.metadata.num_rows} rows of {size} bytes, too large"
                raise CheckpointError(problem, file=str(path))
            table = held.read(columns=["image", "label"])
        labels = np.asarray(table["label"].to_pylist(), dtype=np.int64)
        images = []
        for cell in table["image"].to_pylist():
            encoded = cell["bytes"] if isinstance(cell, dict) else cell
            if not isinstance(encoded, bytes) or len(encoded) > _MAX_PNG_BYTES:
                raise CheckpointError("an image is not a small PNG", file=str(path))
            with Image.open(io.BytesIO(encoded), formats=["PNG"]) as picture:
                if picture.size[0] * picture.size[1] > 1 << 16:
                    raise CheckpointError(f"an image is {picture.size} pixels", file=str(path))
                images.append(np.asarray(picture.convert("L")))
        return np.stack(images), labels
    except LlmtrapError:
        raise
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error
    except (ArrowException, OSError, ValueError, KeyError, TypeError, SyntaxError, MemoryError) as error:
        problem = f"cannot be read as images and labels: {printable(str(error), 200)}"
        raise CheckpointError(problem, file=str(path)) from error


def load_parquet(path: Path) -> ImageSet:
    """One Parquet file, or a folder with `train-*.parquet` and `test-*.parquet` (as the hub repository has them)."""
    if path.is_file():
        pixels, labels = read_parquet(path)
        return image_set(pixels, labels, file=str(path), source=f"Parquet file {path.name}")
    train = sorted(path.rglob("train-*.parquet"))
    test = sorted(path.rglob("test-*.parquet"))
    if not train:
        remedy = "Give a folder of IDX files (train-images-idx3-ubyte and the like) or of train-*.parquet"
        raise CheckpointError("has neither IDX nor Parquet files", file=str(path), remedy=remedy)
    source = f"Parquet files in {path.name}"
    held_out = image_set(*read_parquet(test[0]), file=str(test[0]), source=source) if test else None
    return image_set(*read_parquet(train[0]), file=str(train[0]), source=source, held_out=held_out)


def load_hub(*, local_only: bool) -> ImageSet:
    """MNIST from the Hugging Face hub or from its cache.

    Args:
        local_only: look in the cache only, and make no request.

    Raises:
        AccessError: not in the cache, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    try:
        files = [
            Path(hf_hub_download(HUB_REPOSITORY, name, repo_type="dataset", local_files_only=local_only))
            for name in _HUB_FILES
        ]
    except Exception as error:
        # The client raises its own, requests' and httpx' errors here, which share no base but Exception.
        raise AccessError(
            f"cannot be fetched: {error}",
            file=f"hub dataset {HUB_REPOSITORY}",
            remedy="Check the network, or give a folder of IDX or Parquet files with --data",
        ) from error
    source = f"hub dataset {HUB_REPOSITORY}"
    held_out = image_set(*read_parquet(files[1]), file=str(files[1]), source=source)
    return image_set(*read_parquet(files[0]), file=str(files[0]), source=source, held_out=held_out)
