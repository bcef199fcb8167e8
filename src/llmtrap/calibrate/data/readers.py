"""Files of labelled grey images: IDX, in which MNIST was first published, and the Parquet of the Hugging Face hub."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrap.documents import DocumentError, open_document
from llmtrap.errors import CheckpointError, LlmtrapError, MissingExtraError
from llmtrap.printable import printable

Labelled = tuple[NDArray[np.generic], NDArray[np.generic]]

_UNSIGNED_BYTE = 0x08
_MAX_BYTES = 1 << 30
_MAX_ROWS = 1_000_000
_MAX_PNG_BYTES = 1 << 20
_MAX_PIXELS = 1 << 16


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, plain or gzipped.

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
        problem = f"does not hold the {size} values that its header claims"
        raise CheckpointError(problem, file=str(path), remedy="Fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_pair(folder: Path, part: str) -> tuple[Path, Path] | None:
    """Image and label file of `train` or `t10k` in a folder, under any of the usual spellings."""
    found = []
    for kind, rank in (("images", 3), ("labels", 1)):
        names = [f"{part}-{kind}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        found += [folder / name for name in names if (folder / name).is_file()][:1]
    return (found[0], found[1]) if len(found) == 2 else None


def read_parquet(path: Path) -> Labelled:
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
        remedy = "Install them with: pip install pyarrow pillow"
        raise MissingExtraError("reading Parquet needs pyarrow and Pillow", remedy=remedy) from error
    try:
        with open_document(path, _MAX_BYTES, "data set") as stream:
            held = parquet.ParquetFile(stream)
            size = sum(held.metadata.row_group(k).total_byte_size for k in range(held.metadata.num_row_groups))
            if held.metadata.num_rows > _MAX_ROWS or not 0 <= size <= _MAX_BYTES:
                problem = f"holds {held.metadata.num_rows} rows of {size} bytes, too large"
                raise CheckpointError(problem, file=str(path))
            table = held.read(columns=["image", "label"])
        images = []
        for cell in table["image"].to_pylist():
            encoded = cell["bytes"] if isinstance(cell, dict) else cell
            if not isinstance(encoded, bytes) or len(encoded) > _MAX_PNG_BYTES:
                raise CheckpointError("an image is not a small PNG", file=str(path))
            with Image.open(io.BytesIO(encoded), formats=["PNG"]) as picture:
                if math.prod(picture.size) > _MAX_PIXELS:
                    raise CheckpointError(f"an image is {picture.size} pixels", file=str(path))
                images.append(np.asarray(picture.convert("L")))
        return np.stack(images), np.asarray(table["label"].to_pylist(), dtype=np.int64)
    except LlmtrapError:
        raise
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error
    except (ArrowException, OSError, ValueError, KeyError, TypeError, SyntaxError, MemoryError) as error:
        problem = f"cannot be read as images and labels: {printable(str(error), 200)}"
        raise CheckpointError(problem, file=str(path)) from error
