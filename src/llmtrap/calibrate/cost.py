"""What a calibration would cost on this machine, said before it is begun."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.settings import PlannedRun
from llmtrap.report.formatting import duration, plural

_PROBE = 1_024


def weights(recipe: Recipe) -> int:
    """Entries of all weight matrices."""
    if recipe.images:
        return sum(rows * columns for rows, columns in pairwise(recipe.widths))
    d = recipe.d_model
    vocabulary = recipe.entities + recipe.relations if recipe.task == "composition" else 2 * recipe.modulus
    return recipe.layers * (4 * d * d + 2 * d * recipe.d_mlp) + vocabulary * d


def operations(recipe: Recipe) -> float:
    """Floating-point operations of a run's training: 6 for each weight, token and step (Kaplan et al. 2020, 2.1).

    The three tokens of a fact all pass through the network; of a sum only the last does, and of an image there is one.
    """
    tokens = 3 if recipe.task == "composition" else 1
    batch = recipe.batch or round(recipe.train_fraction * recipe.modulus**2)
    return 6.0 * weights(recipe) * tokens * batch * min(recipe.steps, recipe.frozen_from)


def rate(dtype: str) -> float:
    """Operations a CPU second of this machine, from one product of two matrices of 1,024 rows and columns."""
    import torch

    matrix = torch.ones(_PROBE, _PROBE, dtype=getattr(torch, dtype))
    matrix @ matrix
    began = time.process_time()
    matrix @ matrix
    return 2.0 * _PROBE**3 / max(time.process_time() - began, 1e-6)


def cost_in_words(runs: Sequence[PlannedRun]) -> str:
    """The training of all runs, in operations and in hours of one core at the speed of its matrix products.

    A lower bound: small matrices, attention and measuring come on top.
    """
    work = dict.fromkeys(sorted({run.recipe.dtype for run in runs}), 0.0)
    for run in runs:
        work[run.recipe.dtype] += operations(run.recipe)
    seconds = sum(count / rate(dtype) for dtype, count in work.items())
    steps = sum(run.recipe.steps for run in runs)
    return (
        f"{plural(len(runs), 'run')}, {steps:,} steps in all: {sum(work.values()):.1e} operations, at least "
        f"{duration(seconds)} of one core of this machine"
    )
