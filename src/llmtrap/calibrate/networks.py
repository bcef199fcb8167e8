"""The networks of the calibration tasks as plain functions of a dictionary of weights: one for each task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from llmtrap.calibrate import transformers
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import torch_stream
from llmtrap.calibrate.transformers import Weights

Outputs = tuple[Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Network:
    """One kind of network.

    Attributes:
        initial: draws its parameters, in float64.
        matrices: names of the weight matrices that are audited, in the order of the network.
        forward: logits and hidden activations of inputs.
        scored: those whose measures count for the phases: all but a head with too few rows for a count of traps.
    """

    initial: Callable[[Recipe, torch.Generator], dict[str, Tensor]]
    matrices: Callable[[Recipe], tuple[str, ...]]
    forward: Callable[[Recipe, Weights, Tensor], Outputs]
    scored: Callable[[Recipe], tuple[str, ...]] | None = None


def _mlp_weights(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    """PyTorch's default for linear layers, U(−1/√fan_in, 1/√fan_in) for weights and biases, times `init_scale`."""
    weights: dict[str, Tensor] = {}
    for number, (fan_in, width) in enumerate(zip(recipe.widths, recipe.widths[1:], strict=False), start=1):
        bound = recipe.init_scale / math.sqrt(fan_in)
        for part, shape in (("weight", (width, fan_in)), ("bias", (width,))):
            drawn = torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
            weights[f"fc{number}.{part}"] = drawn
    return weights


def _mlp_matrices(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"fc{number}.weight" for number in range(1, len(recipe.widths)))


def _mlp_forward(recipe: Recipe, weights: Weights, images: Tensor) -> Outputs:
    hidden: list[Tensor] = []
    x = images
    last = len(recipe.widths) - 1
    for number in range(1, last + 1):
        x = functional.linear(x, weights[f"fc{number}.weight"], weights[f"fc{number}.bias"])
        if number < last:
            x = functional.relu(x)
            hidden.append(x)
    return x, tuple(hidden)


_MLP = Network(_mlp_weights, _mlp_matrices, _mlp_forward, lambda recipe: _mlp_matrices(recipe)[:-1])
_ADDITION = Network(transformers.addition_weights, transformers.addition_matrices, transformers.addition_forward)
_COMPOSITION = Network(
    transformers.composition_weights, transformers.composition_matrices, transformers.composition_forward
)
NETWORKS = {"mnist": _MLP, "digits": _MLP, "modular-addition": _ADDITION, "composition": _COMPOSITION}


def initial_weights(recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """Draw the initial parameters on the CPU in float64 and round them to the recipe's dtype."""
    dtype = getattr(torch, recipe.dtype)
    drawn = NETWORKS[recipe.task].initial(recipe, torch_stream(seed, "init"))
    return {name: weight.to(dtype) for name, weight in drawn.items()}


def matrix_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the weight matrices that are audited, in the order of the network."""
    return NETWORKS[recipe.task].matrices(recipe)


def scored_names(recipe: Recipe) -> tuple[str, ...]:
    """Matrices whose measures count for the phases."""
    network = NETWORKS[recipe.task]
    return (network.scored or network.matrices)(recipe)


def forward(recipe: Recipe, weights: Weights, inputs: Tensor) -> Outputs:
    """Logits [examples, classes] and the activations of each hidden layer [examples or places, units].

    Args:
        recipe: says which network.
        weights: parameters by name.
        inputs: images [examples, pixels], or tokens [examples, 2 or 3] of integers.
    """
    return NETWORKS[recipe.task].forward(recipe, weights, inputs)


def loss(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over examples: squared error against one-hot targets (mean over classes too), or cross-entropy."""
    if recipe.loss == "cross-entropy":
        return functional.cross_entropy(logits, labels)
    return functional.mse_loss(logits, functional.one_hot(labels, logits.shape[1]).to(logits.dtype))
