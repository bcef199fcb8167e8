"""The rival diagnostics, which need data or weights but no random-matrix theory (arXiv 2602.02859, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.measurement import Diagnostics
from llmtrap.calibrate.networks import forward, loss, matrix_names
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import torch_stream
from llmtrap.calibrate.transformers import Weights

# Share of the weights set to 0 for the local circuit complexity (Golechha, arXiv 2405.12755, section 4.3).
_MASKED = 0.1
_PROBES = 2_000
PROBE_SCALES = (0.5, 1.0, 2.0, 4.0)


def l2_norm(matrices: Sequence[Tensor]) -> float:
    """√Σ‖W‖²_F."""
    return math.sqrt(sum(float(matrix.double().square().sum()) for matrix in matrices))


def absolute_weight_entropy(matrix: Tensor) -> float:
    """−Σ|w| log|w|, with 0 log 0 = 0. Not a Shannon entropy: negative where many entries exceed 1."""
    size = matrix.double().abs()
    return -float(torch.special.xlogy(size, size).sum())


def masked(weights: Weights, names: Sequence[str], seed: int) -> dict[str, Tensor]:
    """The weights with a random tenth of each named matrix set to 0; the seed decides which."""
    generator = torch_stream(seed, "mask")
    copies = dict(weights)
    for name in names:
        keep = torch.rand(weights[name].shape, generator=generator, dtype=torch.float64) >= _MASKED
        copies[name] = weights[name] * keep
    return copies


def circuit_complexity(logits: Tensor, masked_logits: Tensor) -> float:
    """Σ over examples of KL(softmax(logits) ‖ softmax(masked_logits)), in nats."""
    whole = functional.log_softmax(logits.double(), dim=1)
    cut = functional.log_softmax(masked_logits.double(), dim=1)
    return float(functional.kl_div(cut, whole, reduction="sum", log_target=True))


def gaussian_probes(recipe: Recipe, data: TaskData, seed: int, scale: float) -> Tensor:
    """Inputs without content: Gaussian, of the training pixels' mean and `scale` times their deviation.

    Tokens have no mean: there every example that is not trained on is a probe, and the scale has no meaning.
    """
    if not recipe.images:
        return data.test_inputs
    generator = torch_stream(seed, "probes")
    pixels = data.train_inputs
    noise = torch.randn((_PROBES, pixels.shape[1]), generator=generator, dtype=torch.float64)
    return (pixels.mean() + scale * pixels.std() * noise).to(pixels.dtype)


def largest_share(logits: Tensor) -> float:
    """Share of examples that the commonest prediction takes."""
    return float(torch.bincount(logits.argmax(dim=1)).max()) / len(logits)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of examples whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).double().mean())


@torch.no_grad()
def diagnose(recipe: Recipe, weights: Mapping[str, Tensor], data: TaskData, seed: int) -> Diagnostics:
    """Every diagnostic of one checkpoint."""
    names = matrix_names(recipe)
    logits, hidden = forward(recipe, weights, data.train_inputs)
    test_logits, _ = forward(recipe, weights, data.test_inputs)
    masked_logits, _ = forward(recipe, masked(weights, names, seed), data.train_inputs)
    far = None
    if data.far_inputs is not None and data.far_labels is not None and len(data.far_inputs):
        far = _accuracy(forward(recipe, weights, data.far_inputs)[0], data.far_labels)
    scales = PROBE_SCALES if recipe.images else (1.0,)
    probes = (gaussian_probes(recipe, data, seed, scale) for scale in scales)
    return Diagnostics(
        train_accuracy=_accuracy(logits, data.train_labels),
        test_accuracy=_accuracy(test_logits, data.test_labels),
        train_loss=float(loss(recipe, logits, data.train_labels)),
        test_loss=float(loss(recipe, test_logits, data.test_labels)),
        far_accuracy=far,
        l2=l2_norm([weights[name] for name in names]),
        circuit_complexity=circuit_complexity(logits, masked_logits),
        sparsity=tuple(float((layer <= 0).double().mean()) for layer in hidden),
        dead=tuple(int((layer <= 0).all(dim=0).sum()) for layer in hidden),
        class_share=tuple(largest_share(forward(recipe, weights, probe)[0]) for probe in probes),
    )
