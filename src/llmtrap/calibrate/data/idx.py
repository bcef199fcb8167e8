"""The IDX files in which MNIST was first published, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrap.calibrate.data.images import ImageSet, image_set
from llmtrap.documents import DocumentError, open_document
from llmtrap.errors import CheckpointError
from llmtrap.printable import printable

_UNSIGNED_BYTE = 0x08
_MAX_BYTES = 1 << 30


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    The format: two zero bytes, the type (0x08 for unsigned bytes), the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values row by row.

    Raises:
        CheckpointError: the file is not such a file, or its length contradicts its header.
    """
    try:
        with open_document(path, _MAX_BYTES, "data set") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            head = stream.read(4)
            if len(head) != 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE or not 1 <= head[3] <= 3:
                raise CheckpointError("not an IDX file of unsigned bytes", file=str(path))
            dimensions = stream.read(4 * head[3])
            if len(dimensions) != 4 * head[3]:
                raise CheckpointError("the IDX header is cut short", file=str(path))
            shape = struct.unpack(f">{head[3]}I", dimensions)
            size = math.prod(shape)
            if size > _MAX_BYTES:
                raise CheckpointError(f"the header claims {size} bytes, more than any such set has", file=str(path))
            data = stream.read(size + 1)
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise CheckpointError(f"cannot be read: {printable(str(error), 200)}", file=str(path)) from error
    if len(data) != size:
        raise CheckpointError(
            f"does not hold the {size} values that its header claims", file=str(path), remedy="Fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def find_pair(folder: Path, part: str) -> tuple[Path, Path] | None:
    """Image and label file of `train` or `t10k` in a folder, under any of the usual spellings."""
    found = []
    for kind, rank in (("images", 3), ("labels", 1)):
        names = [f"{part}-{kind}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            return None
        found.append(path)
    return found[0], found[1]


def load_idx_folder(folder: Path) -> ImageSet | None:
    """Training and test set from a folder of IDX files; None where the training pair is not there."""
    train, test = find_pair(folder, "train"), find_pair(folder, "t10k")
    if train is None:
        return None
    source = f"IDX files in {folder.name}"
    held_out = None
    if test is not None:
        held_out = image_set(read_idx(test[0]), read_idx(test[1]), file=str(test[0]), source=source)
    return image_set(read_idx(train[0]), read_idx(train[1]), file=str(train[0]), source=source, held_out=held_out)
