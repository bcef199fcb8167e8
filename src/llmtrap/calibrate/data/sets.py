"""From a task and a seed to the tensors that a run trains and is tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmtrap.calibrate.data.images import CLASSES, ImageSet, load_images
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import numpy_stream
from llmtrap.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskData:
    """What one run trains and is tested on.

    Attributes:
        train_inputs: images [n, pixels] in [0, 1], or tokens [n, 2 or 3].
        train_labels: [n].
        test_inputs: as `train_inputs`.
        test_labels: [m].
        source: where they came from.
        side: of an image in pixels; 0 for tokens.
        far_inputs: examples outside the training distribution, for the task that has them.
        far_labels: theirs.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    source: str
    side: int = 0
    far_inputs: Tensor | None = None
    far_labels: Tensor | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the training examples and their labels, by which a run knows its data again."""
        digest = hashlib.sha256()
        for tensor in (self.train_inputs, self.train_labels):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def task_data(recipe: Recipe, seed: int, data: str | None = None) -> TaskData:
    """Read and split the data of a run; the same seed gives the same split.

    Raises:
        UsageError: a class has too few images for the training set the recipe asks for.
    """
    if recipe.images:
        return _split(recipe, seed, load_images(recipe.task, data))
    from llmtrap.calibrate.data.made import facts, sums

    return sums(recipe, seed) if recipe.task == "modular-addition" else facts(recipe, seed)


def _split(recipe: Recipe, seed: int, images: ImageSet) -> TaskData:
    import torch

    if images.pixels.shape[1] != recipe.widths[0]:
        raise UsageError(
            f"{recipe.task} needs images of {recipe.widths[0]} pixels, these have {images.pixels.shape[1]}",
            remedy="Give the data of the task itself",
        )
    random = numpy_stream(seed, "data")
    each = recipe.train_size // CLASSES
    train, rest = [], []
    for digit in range(CLASSES):
        members = random.permutation(np.flatnonzero(images.labels == digit))
        if len(members) < each + (images.held_out is None):
            raise UsageError(f"{len(members)} images of the digit {digit} are too few: {each} are trained on")
        train.append(members[:each])
        rest.append(members[each:])
    chosen = random.permutation(np.concatenate(train))
    pool = images.held_out or images
    test = random.permutation(np.arange(len(pool.labels)) if images.held_out else np.concatenate(rest))
    test = test[: recipe.test_size or None]
    dtype = getattr(torch, recipe.dtype)
    return TaskData(
        torch.from_numpy(images.pixels[chosen]).to(dtype),
        torch.from_numpy(images.labels[chosen]),
        torch.from_numpy(pool.pixels[test]).to(dtype),
        torch.from_numpy(pool.labels[test]),
        images.source,
        images.side,
    )
