"""One optimiser step after another: the general stepper by autograd, and the contract that both steppers keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmtrap.calibrate.flat_adamw import FlatAdamW
from llmtrap.calibrate.networks import forward, loss
from llmtrap.calibrate.recipe import Recipe


@dataclass(frozen=True)
class OptimiserState:
    """All that AdamW needs to carry on, by parameter name, on the CPU; `extra` is the stepper's own."""

    weights: Mapping[str, Tensor]
    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    updates: int
    extra: Mapping[str, Tensor]

    @classmethod
    def fresh(cls, weights: Mapping[str, Tensor]) -> OptimiserState:
        """The state before the first update."""
        zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        return cls(weights, zeros, zeros, 0, {})


class Stepper(Protocol):
    """Trains one network on one training set, batch by batch."""

    def begin_epoch(self, order: Tensor) -> None:
        """Put the training examples in this order for the batches to come."""

    def step(self, first: int, last: int, now: int) -> None:
        """Update on the examples [first, last) of the order; the update leads from step `now` to the next."""

    def weights(self) -> dict[str, Tensor]:
        """Every parameter as it is now, on the CPU; copies."""

    def state(self) -> OptimiserState:
        """All that another stepper needs to carry on to the same last bit."""


class AutogradStepper:
    """Any of the networks, differentiated by autograd, updated through one flat buffer.

    Args:
        recipe: network, loss and optimiser.
        inputs: training inputs, [n, …].
        labels: training labels, [n].
        state: where to start.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, inputs: Tensor, labels: Tensor, state: OptimiserState, device: torch.device):
        self._recipe = recipe
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        self._epoch = (self._inputs, self._labels)
        self._adamw = FlatAdamW(
            state.weights,
            device=device,
            betas=recipe.betas,
            eps=recipe.eps,
            moments=(state.first, state.second),
            updates=state.updates,
        )
        # Leaves that share memory with the flat buffers: autograd adds each gradient in place.
        self._leaves = {name: weight.detach().requires_grad_() for name, weight in self._adamw.weights.items()}
        for name, leaf in self._leaves.items():
            leaf.grad = self._adamw.gradients[name]

    def begin_epoch(self, order: Tensor) -> None:
        """See `Stepper`."""
        order = order.to(self._inputs.device)
        self._epoch = (self._inputs[order], self._labels[order])

    def step(self, first: int, last: int, now: int) -> None:
        """See `Stepper`."""
        inputs, labels = self._epoch
        self._adamw.clear_gradients()
        logits, _ = forward(self._recipe, self._leaves, inputs[first:last])
        loss(self._recipe, logits, labels[first:last]).backward()  # type: ignore[no-untyped-call]
        if self._recipe.gradient_limit:
            self._adamw.limit_gradients(self._recipe.gradient_limit)
        self._adamw.update(self._recipe.learning_rate(now), self._recipe.weight_decay_at(now))

    def weights(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        return _to_cpu(self._adamw.weights)

    def state(self) -> OptimiserState:
        """See `Stepper`."""
        adamw = self._adamw
        return OptimiserState(_to_cpu(adamw.weights), _to_cpu(adamw.first), _to_cpu(adamw.second), adamw.updates, {})


def _to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
