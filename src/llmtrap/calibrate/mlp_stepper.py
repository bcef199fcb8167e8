"""The MLP's own stepper: a hand-written backward pass that leaves out, exactly, what can no longer change.

Two parts of this network stand still during training, and leaving them out of every product changes nothing but the
order of additions:

* A pixel that is 0 in every training image gives its weights a gradient of exactly 0.
* A first-layer unit that fires on no training image gets no gradient either, and since its inputs never change, it
  never comes back. Once AdamW's first moment of its weights has died away it is frozen. Most units end so: the late
  part of a run then costs a third.

With weight decay both only shrink, by the product of (1 − rate · decay), which is applied when they are read. A frozen
unit still fires on test images, so every measure is taken on the whole network.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.flat_adamw import FlatAdamW, Tensors, aligned
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.steppers import as_state, parts_of

# Updates between two looks for frozen units: a fixed rhythm, so that a resumed run looks at the same steps.
_LOOK_EVERY = 1_000
# A unit is silent when its largest input over the training set is below this; rounding is a thousand times smaller.
_SILENT = -1e-4
# A first moment under this moves no weight: even with a second moment of 0 the update is below 1e-24.
_SPENT = 1e-30


class MlpStepper:
    """Three layers, ReLU, mean squared error against one-hot targets, AdamW.

    Args:
        recipe: widths and optimiser; the loss must be "mse" and the widths four.
        data: training images.
        state: where to start; says which units are live when it comes from this class.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, data: TaskData, state: Tensors, device: torch.device):
        self._recipe, self._device = recipe, device
        inputs, dtype = data.train_inputs, state["weights/fc1.weight"].dtype
        self._lit = (inputs != 0).any(dim=0).nonzero().flatten()
        images = torch.zeros(len(inputs), aligned(len(self._lit)), dtype=dtype)
        images[:, : len(self._lit)] = inputs[:, self._lit].to(dtype)
        self._images = images.to(device)
        targets = torch.nn.functional.one_hot(data.train_labels, recipe.widths[-1])
        self._targets = targets.to(device=device, dtype=dtype)
        self._epoch = (self._images, self._targets)
        self._whole = _copies(parts_of(state))
        everyone = torch.ones(recipe.widths[1], dtype=torch.bool)
        self._live = state.get("extra/live", everyone).bool().nonzero().flatten()
        self._shrunk = float(state["extra/shrunk"]) if "extra/shrunk" in state else 1.0
        self._updates = int(state["updates"])
        self._pack()

    # -- the parts that train ------------------------------------------------------------------------------------

    def _cut(self, tensors: Tensors) -> dict[str, Tensor]:
        """The rows and columns that still train; columns are padded with zeros to a whole cache line."""
        first = tensors["fc1.weight"]
        rows = torch.zeros(len(self._live), self._images.shape[1], dtype=first.dtype)
        rows[:, : len(self._lit)] = first[self._live][:, self._lit]
        return {
            "fc1.weight": rows,
            "fc1.bias": tensors["fc1.bias"][self._live],
            "fc2.weight": tensors["fc2.weight"][:, self._live],
            "fc2.bias": tensors["fc2.bias"],
            "fc3.weight": tensors["fc3.weight"],
            "fc3.bias": tensors["fc3.bias"],
        }

    def _paste(self, cut: Tensors, whole: dict[str, Tensor]) -> None:
        """Write the trained rows and columns back into whole tensors."""
        whole["fc1.weight"][self._live.unsqueeze(1), self._lit] = cut["fc1.weight"][:, : len(self._lit)].cpu()
        whole["fc1.bias"][self._live] = cut["fc1.bias"].cpu()
        whole["fc2.weight"][:, self._live] = cut["fc2.weight"].cpu()
        for name in ("fc2.bias", "fc3.weight", "fc3.bias"):
            whole[name].copy_(cut[name])

    def _pack(self) -> None:
        """Set up the flat buffers for the live part."""
        weights, first, second = (self._cut(part) for part in self._whole)
        self._adamw = FlatAdamW(self._recipe, (weights, first, second), self._updates, self._device)
        self._rooms: dict[int, tuple[Tensor, ...]] = {}

    def _unpacked(self, *, shrink: bool) -> tuple[dict[str, Tensor], ...]:
        """Whole weights and moments as they are now; what stands still is shrunk by weight decay, if asked."""
        copies = _copies(self._whole)
        if shrink and self._shrunk != 1.0:
            for name in ("fc1.weight", "fc1.bias", "fc2.weight"):
                copies[0][name].mul_(self._shrunk)
        for cut, whole in zip(self._adamw.parts, copies, strict=True):
            self._paste(cut, whole)
        return copies

    def _look(self) -> None:
        """Freeze the first-layer units that can no longer change."""
        weights, moments = self._adamw.weights, self._adamw.first
        peak = torch.addmm(weights["fc1.bias"], self._images, weights["fc1.weight"].T).amax(dim=0)
        left = moments["fc1.weight"].abs().amax(dim=1)
        left = torch.maximum(left, moments["fc1.bias"].abs())
        left = torch.maximum(left, moments["fc2.weight"].abs().amax(dim=0))
        frozen = ((peak < _SILENT) & (left < _SPENT)).cpu()
        if not frozen.any() or frozen.all():
            return
        self._whole = self._unpacked(shrink=True)
        self._shrunk = 1.0
        self._live = self._live[~frozen]
        self._pack()

    # -- training ------------------------------------------------------------------------------------------------

    def begin_epoch(self, order: Tensor) -> None:
        """See `Stepper`."""
        order = order.to(self._device)
        self._epoch = (self._images[order], self._targets[order])

    def _room(self, batch: int) -> tuple[Tensor, ...]:
        """Buffers for the activations and errors of a batch."""
        if batch not in self._rooms:
            sizes = (len(self._live), *self._recipe.widths[2:], self._recipe.widths[2], len(self._live))
            like = self._images
            self._rooms[batch] = tuple(like.new_empty((batch, size)) for size in sizes)
        return self._rooms[batch]

    def step(self, first: int, last: int, now: int) -> None:
        """See `Stepper`."""
        x, y = self._epoch[0][first:last], self._epoch[1][first:last]
        w, g = self._adamw.weights, self._adamw.gradients
        h1, h2, error, e2, e1 = self._room(last - first)
        torch.addmm(w["fc1.bias"], x, w["fc1.weight"].T, out=h1).clamp_min_(0)
        torch.addmm(w["fc2.bias"], h1, w["fc2.weight"].T, out=h2).clamp_min_(0)
        torch.addmm(w["fc3.bias"], h2, w["fc3.weight"].T, out=error)
        error.sub_(y).mul_(2.0 / error.numel())
        _gradients(error, h2, g["fc3.weight"], g["fc3.bias"])
        torch.mm(error, w["fc3.weight"], out=e2)
        e2.mul_(h2 > 0)
        _gradients(e2, h1, g["fc2.weight"], g["fc2.bias"])
        torch.mm(e2, w["fc2.weight"], out=e1)
        e1.mul_(h1 > 0)
        _gradients(e1, x, g["fc1.weight"], g["fc1.bias"])
        self._adamw.update(now)
        self._updates += 1
        self._shrunk *= 1.0 - self._recipe.learning_rate(now) * self._recipe.weight_decay_at(now)
        if self._updates % _LOOK_EVERY == 0:
            self._look()

    def weights(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        return self._unpacked(shrink=True)[0]

    def state(self) -> dict[str, Tensor]:
        """See `Stepper`.

        The parts that stand still are stored as they were when they last trained, with the factor beside them:
        shrinking them at every save would round them at every save.
        """
        weights, first, second = self._unpacked(shrink=False)
        live = torch.zeros(self._recipe.widths[1], dtype=torch.uint8)
        live[self._live] = 1
        extra = {"extra/live": live, "extra/shrunk": torch.tensor(self._shrunk, dtype=torch.float64)}
        return as_state((weights, first, second), self._updates) | extra


def _copies(parts: Iterable[Tensors]) -> tuple[dict[str, Tensor], ...]:
    return tuple({name: tensor.clone() for name, tensor in part.items()} for part in parts)


def _gradients(error: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Gradients of a linear layer's weight and bias, in place."""
    torch.mm(error.T, inputs, out=weight)
    torch.sum(error, 0, out=bias)
