"""Examples that are computed and not read: sums, and facts that are made of two others."""

from __future__ import annotations

import numpy as np
import torch

from llmtrap.calibrate.data.sets import TaskData
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import numpy_stream

# Share of the atomic facts that no inferred fact of the training set is made of.
_FAR = 0.05


def sums(recipe: Recipe, seed: int) -> TaskData:
    """All sums x + y mod p in random order: the first part to train on, the rest to test on."""
    p = recipe.modulus
    left, right = np.divmod(np.arange(p * p), p)
    order = numpy_stream(seed, "data").permutation(p * p)
    pairs = torch.from_numpy(np.stack((left, right), axis=1)[order])
    labels = torch.from_numpy(((left + right) % p)[order])
    cut = round(recipe.train_fraction * p * p)
    source = f"all {p * p:,} sums x + y mod {p}, {cut:,} of them trained on"
    return TaskData(pairs[:cut], labels[:cut], pairs[cut:], labels[cut:], source)


def facts(recipe: Recipe, seed: int) -> TaskData:
    """The two-hop composition of Wang et al. (arXiv 2405.15071): (h, r₁, b) and (b, r₂, t) make (h, r₁, r₂, t).

    Every entity is the subject of `degree` atomic facts, of relations and with objects drawn at random. One in twenty
    of the atomic facts is set apart. Trained on: all atomic facts, and inferred facts made of two that are not set
    apart. Test: `test_size` other such inferred facts ("in distribution"). Far: all inferred facts made of two that
    are set apart ("out of distribution").

    Tokens: entities, then relations, then the padding that stands in an atomic fact's third place.
    """
    random = numpy_stream(seed, "data")
    entities, relations = recipe.entities, recipe.relations
    used = np.array([np.sort(random.permutation(relations)[: recipe.degree]) for _ in range(entities)])
    objects = random.integers(0, entities, used.shape)
    apart = (random.permutation(used.size) < round(_FAR * used.size)).reshape(used.shape)

    subject = np.repeat(np.arange(entities), recipe.degree)
    padding = np.full(used.size, entities + relations)
    atomic = np.stack((subject, entities + used.ravel(), padding, objects.ravel()), axis=1)
    bridge = objects.ravel()
    # [atomic facts, degree, 4]: each fact followed by every fact of its object.
    first = np.repeat(atomic[:, None, :2], recipe.degree, axis=1)
    inferred = np.concatenate((first, entities + used[bridge][..., None], objects[bridge][..., None]), axis=2)
    set_apart = apart.ravel()[:, None].astype(int) + apart[bridge]
    near = random.permutation(inferred[set_apart == 0])
    far = torch.from_numpy(inferred[set_apart == 2])
    count = min(round(recipe.inferred_ratio * int((~apart).sum())), len(near) - recipe.test_size)
    test = torch.from_numpy(near[: recipe.test_size])
    train = torch.from_numpy(np.concatenate((atomic, near[recipe.test_size : recipe.test_size + count])))
    source = (
        f"{len(atomic):,} atomic and {count:,} inferred facts over {entities:,} entities and {relations} relations; "
        f"tested on {len(test):,} inferred facts in and {len(far):,} out of distribution"
    )
    return TaskData(train[:, :3], train[:, 3], test[:, :3], test[:, 3], source, 0, far[:, :3], far[:, 3])
