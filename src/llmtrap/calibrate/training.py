"""Train one run from where it stands to its end, leaving weights at log-spaced steps."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.flat_adamw import Tensors
from llmtrap.calibrate.mlp_stepper import MlpStepper
from llmtrap.calibrate.networks import initial_weights
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import AGAIN, RunFolder, check_tensors
from llmtrap.calibrate.seeds import torch_stream
from llmtrap.calibrate.steppers import AutogradStepper, Stepper, fresh_state
from llmtrap.errors import CheckpointError

# Seconds between two saves of the state within a long stretch without a checkpoint.
_SAVE_EVERY = 30.0
# Updates between two looks at the clock.
_STRETCH = 500


@dataclass(frozen=True)
class Reached:
    """A run has come to a step; `checkpoint` says whether its weights were saved here."""

    step: int
    checkpoint: bool


class Batches:
    """Training examples in a fresh random order each epoch, a whole number of batches of them."""

    def __init__(self, recipe: Recipe, seed: int, count: int):
        self._batch = min(recipe.batch or count, count)
        self._per_epoch = count // self._batch
        self._count = count
        self._generator = torch_stream(seed, "batches")
        self._order, self._position = torch.arange(count), self._per_epoch

    def carry_on(self, saved: Tensors, stepper: Stepper) -> None:
        """Stand where the batches of this state stood, and give the stepper the order that holds."""
        self._generator.set_state(saved["batches.generator"])
        self._order, self._position = saved["batches.order"], int(saved["batches.position"])
        stepper.begin_epoch(self._order)

    def next(self, stepper: Stepper) -> tuple[int, int]:
        """First and last example, in the stepper's order, of the next batch."""
        if self._position == self._per_epoch:
            self._order, self._position = torch.randperm(self._count, generator=self._generator), 0
            stepper.begin_epoch(self._order)
        first = self._position * self._batch
        self._position += 1
        return first, first + self._batch

    def state(self) -> dict[str, Tensor]:
        """All that is needed to carry on."""
        return {
            "batches.generator": self._generator.get_state(),
            "batches.order": self._order,
            "batches.position": torch.tensor(self._position),
        }


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat subnormal numbers as 0 in this thread, as long as the block lasts.

    The moments of weights without gradient die away into subnormal numbers, on which a CPU is some thirty times
    slower. They are far below anything that moves a weight.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def make_stepper(recipe: Recipe, data: TaskData, state: Tensors, device: torch.device) -> Stepper:
    """The fastest stepper that there is for the recipe's network."""
    kind = MlpStepper if recipe.loss == "mse" and len(recipe.widths) == 4 else AutogradStepper
    return kind(recipe, data, state, device)


def train(
    recipe: Recipe, seed: int, data: TaskData, folder: RunFolder, device: torch.device | None = None
) -> Iterator[Reached]:
    """Train to `recipe.steps`, from the state in `folder` if there is one; one seed gives one trajectory.

    Leaves weights at every checkpoint step and the latest state. A run that is killed and started again takes the same
    path, to the last bit, as one that is not.

    Yields:
        Each checkpoint as it is reached, and signs of life between.

    Raises:
        CheckpointError: the state is damaged, or of another run.
    """
    device = device or torch.device("cpu")
    stepper = make_stepper(recipe, data, fresh_state(initial_weights(recipe, seed)), device)
    batches = Batches(recipe, seed, len(data.train_labels))
    step, seconds = 0, 0.0

    def state() -> dict[str, Tensor]:
        stands = {"step": torch.tensor(step), "seconds": torch.tensor(seconds, dtype=torch.float64)}
        return stepper.state() | batches.state() | stands

    saved = folder.load_state()
    if saved is not None:
        _check(saved, like := state(), folder.state_file)
        stepper = make_stepper(recipe, data, {name: saved[name] for name in like}, device)
        batches.carry_on(saved, stepper)
        step, seconds = int(saved["step"]), float(saved["seconds"])
    present = set(folder.saved_steps())
    last_save = time.monotonic()
    for mark in recipe.marks:
        if mark < step or (mark == step and mark in present):
            continue
        while step < mark:
            stretch = min(_STRETCH, mark - step)
            began = time.process_time()
            if step < recipe.frozen_from:
                with flushed_denormals():
                    for now in range(step, step + stretch):
                        stepper.step(*batches.next(stepper), now)
            # Else the rate is exactly 0: the weights of every later step are those of this one.
            seconds += time.process_time() - began
            step += stretch
            if time.monotonic() - last_save > _SAVE_EVERY and step < mark:
                folder.save_state(state())
                last_save = time.monotonic()
                yield Reached(step, False)
        folder.save_weights(step, stepper.weights(), seconds)
        folder.save_state(state())
        last_save = time.monotonic()
        yield Reached(step, True)


def _check(saved: Tensors, like: Tensors, file: Path) -> None:
    """Hold what was read against what this run saves, and its numbers against what a run can come to.

    Raises:
        CheckpointError: a tensor is missing, is more, has another shape or type, or a value that no run comes to.
    """
    check_tensors(saved, like, file)
    try:
        torch.Generator().set_state(saved["batches.generator"])
    except RuntimeError:
        possible = False
    else:
        order = saved["batches.order"].sort().values
        position = int(saved["batches.position"])
        possible = min(int(saved["step"]), int(saved["updates"])) >= 0 and 0 <= position <= len(order)
        possible &= bool((order == torch.arange(len(order))).all()) and math.isfinite(float(saved["seconds"]))
    if not possible:
        raise CheckpointError("not a state of this run", file=str(file), remedy=AGAIN)
