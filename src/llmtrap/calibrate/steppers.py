"""One optimiser step after another: the general stepper by autograd, and the contract that both steppers keep."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.flat_adamw import FlatAdamW, Parts, Tensors
from llmtrap.calibrate.networks import forward, loss
from llmtrap.calibrate.recipe import Recipe

_PARTS = ("weights", "first", "second")


def as_state(parts: Parts, updates: int) -> dict[str, Tensor]:
    """All that AdamW needs to carry on, as tensors of one file, on the CPU; copies."""
    named = zip(_PARTS, parts, strict=True)
    flat = {f"{part}/{name}": it.detach().cpu().clone() for part, tensors in named for name, it in tensors.items()}
    return flat | {"updates": torch.tensor(updates)}


def parts_of(state: Tensors) -> Parts:
    """Weights and moments of a state, in its order."""
    first, second, third = (
        {name.removeprefix(f"{part}/"): it for name, it in state.items() if name.startswith(f"{part}/")}
        for part in _PARTS
    )
    return first, second, third


def fresh_state(weights: Tensors) -> dict[str, Tensor]:
    """The state before the first update."""
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    return as_state((weights, zeros, zeros), 0)


class Stepper(Protocol):
    """Trains one network on one training set, batch by batch."""

    def begin_epoch(self, order: Tensor) -> None:
        """Put the training examples in this order for the batches to come."""

    def step(self, first: int, last: int, now: int) -> None:
        """Update on the examples [first, last) of the order; the update leads from step `now` to the next."""

    def weights(self) -> dict[str, Tensor]:
        """Every parameter as it is now, on the CPU; copies."""

    def state(self) -> dict[str, Tensor]:
        """All that another stepper needs to carry on to the same last bit."""


class AutogradStepper:
    """Any of the networks, differentiated by autograd, updated through one flat buffer.

    Args:
        recipe: network, loss and optimiser.
        data: training examples.
        state: where to start.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, data: TaskData, state: Tensors, device: torch.device):
        self._recipe = recipe
        self._inputs, self._labels = data.train_inputs.to(device), data.train_labels.to(device)
        self._epoch = (self._inputs, self._labels)
        self._adamw = FlatAdamW(recipe, parts_of(state), int(state["updates"]), device)
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
        self._adamw.update(now)

    def weights(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        return dict(parts_of(self.state())[0])

    def state(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        return as_state(self._adamw.parts, self._adamw.updates)
