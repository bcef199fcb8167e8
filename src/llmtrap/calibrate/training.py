"""Train one run from where it stands to its end, leaving weights at log-spaced steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.mlp_stepper import MlpStepper
from llmtrap.calibrate.networks import forward, initial_weights
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.saved_state import as_tensors, check_saved, optimiser_state
from llmtrap.calibrate.seeds import torch_stream
from llmtrap.calibrate.steppers import AutogradStepper, OptimiserState, Stepper

# Seconds between two saves of the state within a long stretch without a checkpoint.
_SAVE_EVERY = 30.0
# Updates between two looks at the clock.
_STRETCH = 500


@dataclass(frozen=True)
class Reached:
    """A run has come to a step.

    Attributes:
        step: updates made.
        checkpoint: whether its weights were saved here.
        train_accuracy: on all training examples; None between checkpoints.
        test_accuracy: on all test examples; None between checkpoints.
        seconds: CPU seconds of training so far, over all sittings.
    """

    step: int
    checkpoint: bool
    train_accuracy: float | None
    test_accuracy: float | None
    seconds: float


class Batches:
    """Training examples in a fresh random order each epoch, a whole number of batches of them."""

    def __init__(self, recipe: Recipe, seed: int, count: int, saved: dict[str, Tensor] | None):
        self._batch = min(recipe.batch or count, count)
        self._per_epoch = count // self._batch
        self._count = count
        self._generator = torch_stream(seed, "batches")
        if saved is None:
            self._order, self._position = torch.arange(count), self._per_epoch
        else:
            self._generator.set_state(saved["batches.generator"])
            self._order, self._position = saved["batches.order"], int(saved["batches.position"])

    def start(self, stepper: Stepper) -> None:
        """Give a new or resumed stepper the order that holds now."""
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


def make_stepper(recipe: Recipe, data: TaskData, state: OptimiserState, device: torch.device) -> Stepper:
    """The fastest stepper that there is for the recipe's network."""
    if recipe.loss == "mse" and len(recipe.widths) == 4:
        return MlpStepper(recipe, data.train_inputs, data.train_labels, state, device)
    return AutogradStepper(recipe, data.train_inputs, data.train_labels, state, device)


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
    saved = folder.load_state()
    like, count = initial_weights(recipe, seed), len(data.train_labels)
    if saved is not None:
        check_saved(saved, recipe, like, count, folder.state_file)
    step, seconds = (0, 0.0) if saved is None else (int(saved["step"]), float(saved["seconds"]))
    state = OptimiserState.fresh(like) if saved is None else optimiser_state(saved, like)
    stepper = make_stepper(recipe, data, state, device)
    batches = Batches(recipe, seed, count, saved)
    batches.start(stepper)

    def keep() -> None:
        folder.save_state(as_tensors(stepper.state(), step, seconds) | batches.state())

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
                keep()
                last_save = time.monotonic()
                yield Reached(step, False, None, None, seconds)
        weights = stepper.weights()
        folder.save_weights(step, weights, seconds)
        keep()
        last_save = time.monotonic()
        train_accuracy = accuracy(recipe, weights, data.train_inputs, data.train_labels)
        test_accuracy = accuracy(recipe, weights, data.test_inputs, data.test_labels)
        yield Reached(step, True, train_accuracy, test_accuracy, seconds)


def accuracy(recipe: Recipe, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> float:
    """Share of examples whose largest logit is the label's."""
    with torch.no_grad():
        logits, _ = forward(recipe, weights, inputs)
    return float((logits.argmax(dim=1) == labels).double().mean())
