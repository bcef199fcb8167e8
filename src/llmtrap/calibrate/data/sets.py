"""From a task and a seed to the tensors that a run trains and is tested on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from llmtrap.calibrate.data.examples import TaskData
from llmtrap.calibrate.data.idx import find_pair, load_idx_folder
from llmtrap.calibrate.data.images import CLASSES, ImageSet, image_set
from llmtrap.calibrate.data.parquet import load_hub, load_parquet
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import numpy_stream
from llmtrap.errors import AccessError, MissingExtraError, TargetError, UsageError

HUB = "hub"


def cache_folder() -> Path:
    """Where llmtrap looks for MNIST unasked: `mnist` in its folder of the user's cache (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmtrap" / "mnist"


def mnist_at_hand() -> str | None:
    """The place of an MNIST that can be used without a request: llmtrap's cache folder, or the hub's cache."""
    folder = cache_folder()
    if find_pair(folder, "train") or any(folder.glob("train-*.parquet")):
        return str(folder)
    try:
        load_hub(local_only=True)
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
        raise UsageError(
            "no MNIST is at hand",
            remedy=(
                f"Put its IDX files into {cache_folder()}, give --data FOLDER or hub, or use --task digits, which "
                "needs no data"
            ),
        )
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
        return load_hub(local_only=data is None)
    path = Path(place).expanduser()
    found = load_idx_folder(path if path.is_dir() else path.parent) if "idx" in path.name or path.is_dir() else None
    if found is not None:
        return found
    if path.is_dir() or path.suffix == ".parquet":
        return load_parquet(path)
    raise TargetError(
        "is no set of images that llmtrap reads",
        file=str(path),
        remedy="Give a folder of IDX files (train-images-idx3-ubyte and the like), a .parquet, or hub",
    )


def _digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError.of("the digits task", "calibrate") from error
    bunch = load_digits()
    return image_set(
        (bunch.data / 16.0).astype(np.float32),
        bunch.target,
        file="scikit-learn digits",
        source=f"scikit-learn's bundled 8×8 digits ({len(bunch.target):,} images; not MNIST)",
    )


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
    candidates = np.arange(len(pool.labels)) if images.held_out else np.concatenate(rest)
    test = random.permutation(candidates)
    if recipe.test_size:
        test = test[: recipe.test_size]
    dtype = getattr(torch, recipe.dtype)
    return TaskData(
        torch.from_numpy(images.pixels[chosen]).to(dtype),
        torch.from_numpy(images.labels[chosen]),
        torch.from_numpy(pool.pixels[test]).to(dtype),
        torch.from_numpy(pool.labels[test]),
        images.source,
        images.side,
    )
