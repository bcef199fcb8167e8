"""All parameters of a network in one buffer, so that a fused AdamW updates them in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

# Every tensor starts on a cache line: BLAS may add in another order for another alignment, and a resumed run must be
# the same to the last bit.
_ALIGN = 16


def aligned(count: int) -> int:
    """The least multiple of the alignment that holds `count` elements."""
    return -(-count // _ALIGN) * _ALIGN


class FlatAdamW:
    """Parameters, gradients and both moments, each one contiguous buffer with a view per tensor.

    Args:
        weights: initial values by name; copied.
        device: where the buffers live.
        moments: first and second moments by name to carry on with, and the number of updates made.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        device: torch.device,
        betas: tuple[float, float],
        eps: float,
        moments: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
        updates: int = 0,
    ):
        self._betas, self._eps = betas, eps
        dtype = next(iter(weights.values())).dtype
        length = sum(aligned(weight.numel()) for weight in weights.values())
        self._buffers = [torch.zeros(length, dtype=dtype, device=device) for _ in range(4)]
        self._updates = torch.tensor(float(updates), dtype=torch.float32, device=device)
        self.weights, self.gradients, self.first, self.second = (
            self._views(buffer, weights) for buffer in self._buffers
        )
        for name, weight in weights.items():
            self.weights[name].copy_(weight)
            if moments is not None:
                self.first[name].copy_(moments[0][name])
                self.second[name].copy_(moments[1][name])

    @staticmethod
    def _views(buffer: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views, offset = {}, 0
        for name, tensor in like.items():
            views[name] = buffer[offset : offset + tensor.numel()].view(tensor.shape)
            offset += aligned(tensor.numel())
        return views

    @property
    def updates(self) -> int:
        """Updates made so far; exact in float32 up to 2²⁴."""
        return int(self._updates.item())

    def clear_gradients(self) -> None:
        """Set every gradient to 0."""
        self._buffers[1].zero_()

    def limit_gradients(self, norm: float) -> None:
        """Scale all gradients together down to this Euclidean norm, where theirs is larger."""
        gradients = self._buffers[1]
        gradients.mul_((norm / torch.linalg.vector_norm(gradients)).clamp_max_(1.0))

    def update(self, rate: float, weight_decay: float) -> None:
        """One AdamW update (Loshchilov & Hutter 2019) of every parameter.

        Args:
            rate: learning rate.
            weight_decay: decoupled decay.
        """
        parameters, gradients, first, second = self._buffers
        self._updates.add_(1)
        fused = cast("object", torch._fused_adamw_)
        fused(  # type: ignore[operator]
            [parameters],
            [gradients],
            [first],
            [second],
            [],
            [self._updates],
            lr=rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=weight_decay,
            eps=self._eps,
            amsgrad=False,
            maximize=False,
        )
