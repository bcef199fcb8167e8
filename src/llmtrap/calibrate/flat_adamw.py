"""All parameters of a network in one buffer, so that a fused AdamW updates them in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from llmtrap.calibrate.recipe import Recipe

Tensors = Mapping[str, Tensor]
# Weights, and AdamW's first and second moments of them.
Parts = tuple[Tensors, Tensors, Tensors]

# Every tensor starts on a cache line: BLAS may add in another order for another alignment, and a resumed run must be
# the same to the last bit.
_ALIGN = 16


def aligned(count: int) -> int:
    """The least multiple of the alignment that holds `count` elements."""
    return -(-count // _ALIGN) * _ALIGN


class FlatAdamW:
    """Parameters, gradients and both moments, each one contiguous buffer with a view per tensor.

    Args:
        recipe: has the optimiser's constants.
        parts: weights and moments to carry on with, copied.
        updates: made so far.
        device: where the buffers live.
    """

    def __init__(self, recipe: Recipe, parts: Parts, updates: int, device: torch.device):
        self._recipe = recipe
        like = parts[0]
        dtype = next(iter(like.values())).dtype
        length = sum(aligned(weight.numel()) for weight in like.values())
        self._buffers = [torch.zeros(length, dtype=dtype, device=device) for _ in range(4)]
        self._updates = torch.tensor(float(updates), dtype=torch.float32, device=device)
        self.weights, self.first, self.second, self.gradients = (self._views(buffer, like) for buffer in self._buffers)
        for views, part in zip((self.weights, self.first, self.second), parts, strict=True):
            for name, tensor in part.items():
                views[name].copy_(tensor)

    @staticmethod
    def _views(buffer: Tensor, like: Tensors) -> dict[str, Tensor]:
        views, offset = {}, 0
        for name, tensor in like.items():
            views[name] = buffer[offset : offset + tensor.numel()].view(tensor.shape)
            offset += aligned(tensor.numel())
        return views

    @property
    def parts(self) -> Parts:
        """Weights and moments as they are now: views."""
        return self.weights, self.first, self.second

    @property
    def updates(self) -> int:
        """Updates made so far; exact in float32 up to 2²⁴."""
        return int(self._updates.item())

    def clear_gradients(self) -> None:
        """Set every gradient to 0."""
        self._buffers[3].zero_()

    def limit_gradients(self, norm: float) -> None:
        """Scale all gradients together down to this Euclidean norm, where theirs is larger."""
        gradients = self._buffers[3]
        gradients.mul_((norm / torch.linalg.vector_norm(gradients)).clamp_max_(1.0))

    def update(self, now: int) -> None:
        """One AdamW update (Loshchilov & Hutter 2019) of every parameter, at the rate and the decay of step `now`."""
        parameters, first, second, gradients = self._buffers
        recipe = self._recipe
        self._updates.add_(1)
        fused = cast("object", torch._fused_adamw_)
        fused(  # type: ignore[operator]
            [parameters], [gradients], [first], [second], [], [self._updates],
            lr=recipe.learning_rate(now), beta1=recipe.betas[0], beta2=recipe.betas[1], eps=recipe.eps,
            weight_decay=recipe.weight_decay_at(now), amsgrad=False, maximize=False,
        )  # fmt: skip
