"""The two networks of the calibration tasks as plain functions of a dictionary of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import torch_stream

Weights = Mapping[str, Tensor]


def initial_weights(recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """Draw the initial parameters on the CPU in float64 and round them to the recipe's dtype.

    MLP: PyTorch's default for linear layers, U(−1/√fan_in, 1/√fan_in) for weights and biases, times `init_scale`
    (arXiv 2602.02859, appendix A). Transformer: that of Nanda et al. 2023, which the papers name as their model:
    N(0, 1/d_model) everywhere, but N(0, 1/p) for the unembedding, and biases of 0. From uniform weights
    a factor √3 smaller the quick recipe fits its training sums and stays at a third of the others.
    """
    generator = torch_stream(seed, "init")
    dtype = getattr(torch, recipe.dtype)

    def uniform(*shape: int, fan_in: int) -> Tensor:
        bound = recipe.init_scale / math.sqrt(fan_in)
        return torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator)

    def normal(*shape: int, width: int) -> Tensor:
        scale = recipe.init_scale / math.sqrt(width)
        return torch.empty(shape, dtype=torch.float64).normal_(0.0, scale, generator=generator)

    weights: dict[str, Tensor] = {}
    if recipe.task == "modular-addition":
        p, d, hidden = recipe.modulus, recipe.d_model, recipe.d_mlp
        weights["embed.weight"] = normal(p + 1, d, width=d)
        weights["position.weight"] = normal(3, d, width=d)
        for name in ("attn.q.weight", "attn.k.weight", "attn.v.weight", "attn.out.weight"):
            weights[name] = normal(d, d, width=d)
        weights["fc1.weight"] = normal(hidden, d, width=d)
        weights["fc1.bias"] = torch.zeros(hidden, dtype=torch.float64)
        weights["fc2.weight"] = normal(d, hidden, width=d)
        weights["fc2.bias"] = torch.zeros(d, dtype=torch.float64)
        weights["unembed.weight"] = normal(p, d, width=p)
    else:
        for number, (fan_in, width) in enumerate(zip(recipe.widths, recipe.widths[1:], strict=False), start=1):
            weights[f"fc{number}.weight"] = uniform(width, fan_in, fan_in=fan_in)
            weights[f"fc{number}.bias"] = uniform(width, fan_in=fan_in)
    return {name: weight.to(dtype) for name, weight in weights.items()}


def matrix_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the weight matrices that are audited, in the order of the network."""
    if recipe.task == "modular-addition":
        attention = ("attn.q.weight", "attn.k.weight", "attn.v.weight", "attn.out.weight")
        return ("embed.weight", *attention, "fc1.weight", "fc2.weight", "unembed.weight")
    return tuple(f"fc{number}.weight" for number in range(1, len(recipe.widths)))


def scored_names(recipe: Recipe) -> tuple[str, ...]:
    """Matrices whose measures count for the phases: all but a head with too few rows for a count of traps."""
    names = matrix_names(recipe)
    return names if recipe.task == "modular-addition" else names[:-1]


def forward(recipe: Recipe, weights: Weights, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [examples, classes] and the activations of each hidden ReLU layer [examples, units].

    Args:
        recipe: says which network.
        weights: parameters by name.
        inputs: images [examples, pixels], or token pairs [examples, 2] of integers (the '=' token is implied).
    """
    if recipe.task == "modular-addition":
        return _transformer(recipe, weights, inputs)
    hidden: list[Tensor] = []
    x = inputs
    last = len(recipe.widths) - 1
    for number in range(1, last + 1):
        x = functional.linear(x, weights[f"fc{number}.weight"], weights[f"fc{number}.bias"])
        if number < last:
            x = functional.relu(x)
            hidden.append(x)
    return x, tuple(hidden)


def _transformer(recipe: Recipe, weights: Weights, pairs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One decoder layer over 'x y =', read at '='; no LayerNorm, as arXiv 2602.02859, appendix H.

    Only the last position's output is used, so only its query is computed; keys and values depend on a token and its
    position alone, so they are computed once per token and position, not per example.
    """
    d, heads = recipe.d_model, recipe.heads
    width = d // heads
    p = recipe.modulus
    embed, position = weights["embed.weight"], weights["position.weight"]
    tokens = embed[:p].unsqueeze(0) + position[:2].unsqueeze(1)  # [2, p, d]
    equals = embed[p] + position[2]  # [d]
    query = functional.linear(equals, weights["attn.q.weight"]).view(heads, width)
    keys = functional.linear(tokens, weights["attn.k.weight"]).view(2, p, heads, width)
    values = functional.linear(tokens, weights["attn.v.weight"]).view(2, p, heads, width)
    scores = torch.einsum("sphw,hw->sph", keys, query) / math.sqrt(width)
    own_score = (functional.linear(equals, weights["attn.k.weight"]).view(heads, width) * query).sum(-1) / math.sqrt(
        width
    )
    own_value = functional.linear(equals, weights["attn.v.weight"]).view(heads, width)
    left, right = pairs[:, 0], pairs[:, 1]
    logits = torch.stack((scores[0, left], scores[1, right], own_score.expand(len(pairs), heads)), dim=-1)
    attention = torch.softmax(logits, dim=-1).unsqueeze(2)  # [examples, heads, 1, 3]
    mixed = attention[..., 0] * values[0, left] + attention[..., 1] * values[1, right] + attention[..., 2] * own_value
    stream = equals + functional.linear(mixed.reshape(len(pairs), d), weights["attn.out.weight"])
    hidden = functional.relu(functional.linear(stream, weights["fc1.weight"], weights["fc1.bias"]))
    stream = stream + functional.linear(hidden, weights["fc2.weight"], weights["fc2.bias"])
    return functional.linear(stream, weights["unembed.weight"]), (hidden,)


def loss(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over examples: squared error against one-hot targets (mean over classes too), or cross-entropy."""
    if recipe.loss == "cross-entropy":
        return functional.cross_entropy(logits, labels)
    return functional.mse_loss(logits, functional.one_hot(labels, logits.shape[1]).to(logits.dtype))
