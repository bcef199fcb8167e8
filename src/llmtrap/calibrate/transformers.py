"""The transformers of the token tasks as plain functions of a dictionary of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from llmtrap.calibrate.recipe import Recipe

Weights = Mapping[str, Tensor]
_ATTENTION = ("attn.q", "attn.k", "attn.v", "attn.out")


def _drawn(generator: torch.Generator, shapes: Mapping[str, tuple[float, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Normal entries of mean 0 and the deviation that stands before each shape, in float64; zeros for one of 0."""
    drawn = {}
    for name, (deviation, shape) in shapes.items():
        drawn[name] = torch.zeros(shape, dtype=torch.float64)
        if deviation:
            drawn[name].normal_(0.0, deviation, generator=generator)
    return drawn


# -- modular addition ------------------------------------------------------------------------------------------------


def addition_weights(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    """Initial parameters as those of Nanda et al. 2023, which the papers name as their model.

    N(0, 1/d_model) everywhere, but N(0, 1/p) for the unembedding, and biases of 0. From uniform weights a factor √3
    smaller a quick recipe fitted its training sums and stayed at a third of the others.
    """
    p, d, hidden, scale = recipe.modulus, recipe.d_model, recipe.d_mlp, recipe.init_scale
    wide = scale / math.sqrt(d)
    shapes = {
        "embed.weight": (wide, (p + 1, d)),
        "position.weight": (wide, (3, d)),
        **{f"{name}.weight": (wide, (d, d)) for name in _ATTENTION},
        "fc1.weight": (wide, (hidden, d)),
        "fc1.bias": (0.0, (hidden,)),
        "fc2.weight": (wide, (d, hidden)),
        "fc2.bias": (0.0, (d,)),
        "unembed.weight": (scale / math.sqrt(p), (p, d)),
    }
    return _drawn(generator, shapes)


def addition_matrices(recipe: Recipe) -> tuple[str, ...]:  # noqa: ARG001 - one signature for all networks
    """Names of the matrices that are audited."""
    names = ("embed", *_ATTENTION, "fc1", "fc2", "unembed")
    return tuple(f"{name}.weight" for name in names)


def addition_forward(recipe: Recipe, weights: Weights, pairs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One decoder layer over 'x y =', read at '='; no LayerNorm, as arXiv 2602.02859, appendix H.

    Only the last position's output is used, so only its query is computed; keys and values depend on a token and its
    position alone, so they are computed once per token and position, not per example.
    """
    d, heads, p = recipe.d_model, recipe.heads, recipe.modulus
    width = d // heads
    embed, position = weights["embed.weight"], weights["position.weight"]
    tokens = embed[:p].unsqueeze(0) + position[:2].unsqueeze(1)  # [2, p, d]
    equals = embed[p] + position[2]  # [d]

    def by_head(name: str, rows: Tensor) -> Tensor:
        return functional.linear(rows, weights[f"attn.{name}.weight"]).view(*rows.shape[:-1], heads, width)

    query, keys, values = by_head("q", equals), by_head("k", tokens), by_head("v", tokens)
    scores = torch.einsum("sphw,hw->sph", keys, query) / math.sqrt(width)
    own_score, own_value = (by_head("k", equals) * query).sum(-1) / math.sqrt(width), by_head("v", equals)
    left, right = pairs[:, 0], pairs[:, 1]
    logits = torch.stack((scores[0, left], scores[1, right], own_score.expand(len(pairs), heads)), dim=-1)
    attention = torch.softmax(logits, dim=-1).unsqueeze(2)  # [examples, heads, 1, 3]
    mixed = attention[..., 0] * values[0, left] + attention[..., 1] * values[1, right] + attention[..., 2] * own_value
    stream = equals + functional.linear(mixed.reshape(len(pairs), d), weights["attn.out.weight"])
    hidden = functional.relu(functional.linear(stream, weights["fc1.weight"], weights["fc1.bias"]))
    stream = stream + functional.linear(hidden, weights["fc2.weight"], weights["fc2.bias"])
    return functional.linear(stream, weights["unembed.weight"]), (hidden,)


# -- composition -----------------------------------------------------------------------------------------------------

# Deviation of GPT-2's initial weights; what writes into the residual stream is smaller by √(2 layers).
_GPT2_DEVIATION = 0.02


def composition_weights(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    """Initial parameters as GPT-2's. A norm's gain is kept less 1, so that weight decay leads to 1."""
    d, hidden, deviation = recipe.d_model, recipe.d_mlp, _GPT2_DEVIATION * recipe.init_scale
    writing = deviation / math.sqrt(2 * recipe.layers)
    block = {
        **{f"{name}.weight": (deviation, (d, d)) for name in _ATTENTION[:3]},
        "attn.out.weight": (writing, (d, d)),
        "fc1.weight": (deviation, (hidden, d)),
        "fc1.bias": (0.0, (hidden,)),
        "fc2.weight": (writing, (d, hidden)),
        "fc2.bias": (0.0, (d,)),
        **{f"{norm}.{part}": (0.0, (d,)) for norm in ("norm1", "norm2") for part in ("gain", "bias")},
    }
    shapes = {
        "embed.weight": (deviation, (recipe.entities + recipe.relations + 1, d)),
        "position.weight": (deviation, (3, d)),
        **{f"layers.{layer}.{name}": shape for layer in range(recipe.layers) for name, shape in block.items()},
        **{f"norm.{part}": (0.0, (d,)) for part in ("gain", "bias")},
    }
    return _drawn(generator, shapes)


def composition_matrices(recipe: Recipe) -> tuple[str, ...]:
    """Names of the matrices that are audited."""
    inner = (*_ATTENTION, "fc1", "fc2")
    blocks = (f"layers.{layer}.{name}.weight" for layer in range(recipe.layers) for name in inner)
    return ("embed.weight", *blocks)


def _normed(weights: Weights, name: str, x: Tensor) -> Tensor:
    gain, bias = weights[f"{name}.gain"], weights[f"{name}.bias"]
    return functional.layer_norm(x, gain.shape, 1 + gain, bias)


def composition_forward(recipe: Recipe, weights: Weights, tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A decoder as GPT-2 over 'h r' or 'h r₁ r₂', read at the last relation, with tied embeddings.

    Only that position is used, so the last layer computes its query, and all that follows, there alone.

    Args:
        recipe: sizes.
        weights: parameters by name.
        tokens: [examples, 3]; the third is the padding token where there is no second relation.
    """
    examples, length = tokens.shape
    rows = torch.arange(examples, device=tokens.device)
    read = torch.where(tokens[:, 2] == recipe.entities + recipe.relations, 1, 2)
    places = torch.arange(length, device=tokens.device)
    x = weights["embed.weight"][tokens] + weights["position.weight"]
    hidden = []

    def heads(block: str, name: str, rows_in: Tensor) -> Tensor:
        projected = functional.linear(rows_in, weights[f"{block}.{name}.weight"])
        return projected.view(examples, rows_in.shape[1], recipe.heads, -1).transpose(1, 2)

    for layer in range(recipe.layers):
        block = f"layers.{layer}"
        normed = _normed(weights, f"{block}.norm1", x)
        asking, allowed = normed, (places <= places.unsqueeze(1)).expand(1, 1, length, length)
        if layer == recipe.layers - 1:
            asking, x = normed[rows, read].unsqueeze(1), x[rows, read].unsqueeze(1)
            allowed = (places <= read.unsqueeze(1))[:, None, None, :]
        queries, keys, values = (
            heads(block, "attn.q", asking),
            heads(block, "attn.k", normed),
            heads(block, "attn.v", normed),
        )
        # Three positions are too few for a matrix product to be worth its call.
        scores = (queries.unsqueeze(3) * keys.unsqueeze(2)).sum(-1) / math.sqrt(queries.shape[-1])
        attention = torch.softmax(scores.masked_fill(~allowed, -math.inf), dim=-1)
        mixed = (attention.unsqueeze(-1) * values.unsqueeze(2)).sum(3)
        mixed = mixed.transpose(1, 2).reshape(examples, -1, recipe.d_model)
        x = x + functional.linear(mixed, weights[f"{block}.attn.out.weight"])
        normed = _normed(weights, f"{block}.norm2", x)
        inner = functional.linear(normed, weights[f"{block}.fc1.weight"], weights[f"{block}.fc1.bias"])
        inner = functional.gelu(inner, approximate="tanh") if recipe.gelu else functional.relu(inner)
        x = x + functional.linear(inner, weights[f"{block}.fc2.weight"], weights[f"{block}.fc2.bias"])
        hidden.append(inner.reshape(-1, recipe.d_mlp))
    return functional.linear(_normed(weights, "norm", x[:, -1]), weights["embed.weight"]), tuple(hidden)
