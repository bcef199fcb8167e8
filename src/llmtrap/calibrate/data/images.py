"""A set of labelled grey images, whatever file it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import CheckpointError

CLASSES = 10
_MAX_IMAGES = 1_000_000


@dataclass(frozen=True)
class ImageSet:
    """Grey images in [0, 1] with labels 0 to 9.

    Attributes:
        pixels: [n, side²] float32.
        labels: [n] int64.
        source: where they came from, as a reader should be told.
        held_out: the source's own test set, where it has one.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    source: str
    held_out: ImageSet | None = None

    @property
    def side(self) -> int:
        """Width and height of an image in pixels."""
        return math.isqrt(int(self.pixels.shape[1]))


def image_set(
    pixels: NDArray[np.generic],
    labels: NDArray[np.generic],
    *,
    file: str,
    source: str,
    held_out: ImageSet | None = None,
) -> ImageSet:
    """Check what a loader read, and bring it to one form.

    Args:
        pixels: [n, side, side] or [n, side²]; integers 0 to 255, or floats 0 to 1.
        labels: [n] integers 0 to 9.
        file: the file to name in an error.
        source: description for the report.
        held_out: the source's own test set.

    Raises:
        CheckpointError: shapes do not fit, or values are out of range.
    """
    remedy = "Give a set of grey square images of digits with labels 0 to 9, such as MNIST"
    if pixels.ndim == 3:
        pixels = pixels.reshape(len(pixels), -1)
    if pixels.ndim != 2 or labels.ndim != 1 or len(pixels) != len(labels):
        raise CheckpointError(
            f"images of shape {pixels.shape} do not fit labels of shape {labels.shape}", file=file, remedy=remedy
        )
    side = math.isqrt(pixels.shape[1])
    if not 0 < len(pixels) <= _MAX_IMAGES or side * side != pixels.shape[1] or side < 2:
        raise CheckpointError(
            f"{len(pixels)} images of {pixels.shape[1]} pixels are not usable", file=file, remedy=remedy
        )
    if pixels.dtype.kind not in "uif" or labels.dtype.kind not in "ui":
        raise CheckpointError(f"images are {pixels.dtype} and labels {labels.dtype}", file=file, remedy=remedy)
    grey = pixels.astype(np.float32)
    if pixels.dtype.kind in "ui":
        grey /= np.float32(255)
    if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 1:
        raise CheckpointError("pixels are outside 0 to 1 (or 0 to 255)", file=file, remedy=remedy)
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise CheckpointError("labels are outside 0 to 9", file=file, remedy=remedy)
    return ImageSet(grey, labels.astype(np.int64), source, held_out)
