"""How much faster the calibration's own training step is than a plain PyTorch loop, on the same run.

Alternates the two, a stretch of steps each, on the MNIST network (images of the same shape and sparsity are drawn where
MNIST is not at hand: speed does not depend on what they show), and prints the median of the ratios. Early steps have
every unit alive; late ones, after `--late` steps, have those left out that can no longer change.

    python benchmarks/grokking_training.py [--late 20000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from llmtrap.calibrate.data import TaskData, mnist_at_hand, task_data
from llmtrap.calibrate.mlp_stepper import MlpStepper
from llmtrap.calibrate.networks import initial_weights
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.steppers import fresh_state
from llmtrap.calibrate.training import Batches, flushed_denormals

_STRETCH = 200


def some_images(recipe: Recipe) -> TaskData:
    """MNIST where it is at hand, else noise with a dark border of the same share."""
    if mnist_at_hand() is not None:
        return task_data(recipe, 0)
    random = np.random.default_rng(0)
    pixels = np.zeros((1000, 28, 28), dtype=np.float32)
    pixels[:, 2:26, 2:26] = random.random((1000, 24, 24)) * (random.random((1000, 24, 24)) < 0.3)
    images = torch.from_numpy(pixels.reshape(1000, 784))
    labels = torch.arange(1000) % 10
    return TaskData(images, labels, images[:10], labels[:10], "noise of MNIST's shape", 28)


class PlainLoop:
    """The loop that anyone would write: modules, autograd, torch.optim.AdamW, a random batch each step."""

    def __init__(self, recipe: Recipe, data: TaskData, start: dict[str, torch.Tensor]):
        layers = [torch.nn.Linear(784, 200), torch.nn.Linear(200, 200), torch.nn.Linear(200, 10)]
        for number, layer in enumerate(layers, start=1):
            layer.load_state_dict({"weight": start[f"fc{number}.weight"], "bias": start[f"fc{number}.bias"]})
        self._model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        self._adamw = torch.optim.AdamW(
            self._model.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=0.0
        )
        self._images, self._targets = data.train_inputs, torch.nn.functional.one_hot(data.train_labels, 10).float()
        self._batch = recipe.batch

    def run(self, steps: int) -> None:
        """Train on."""
        for _ in range(steps):
            chosen = torch.randint(len(self._images), (self._batch,))
            self._adamw.zero_grad()
            loss = torch.nn.functional.mse_loss(self._model(self._images[chosen]), self._targets[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            self._adamw.step()


class OwnLoop:
    """The calibration's stepper, with subnormal numbers flushed."""

    def __init__(self, recipe: Recipe, data: TaskData, start: dict[str, torch.Tensor]):
        self._recipe, self._steps = recipe, 0
        self._stepper = MlpStepper(recipe, data, fresh_state(start), torch.device("cpu"))
        self._batches = Batches(recipe, 0, len(data.train_labels))

    def run(self, steps: int) -> None:
        """Train on."""
        with flushed_denormals():
            for _ in range(steps):
                self._stepper.step(*self._batches.next(self._stepper), self._steps)
                self._steps += 1

    def weights(self) -> dict[str, torch.Tensor]:
        """The network as it is."""
        return self._stepper.weights()


def compare(own: OwnLoop, plain: PlainLoop, rounds: int) -> tuple[float, float, float]:
    """Steps per CPU second of each, and the median ratio over alternating rounds."""
    rates: list[tuple[float, float]] = []
    for _ in range(rounds):
        pair = []
        for loop in (own, plain):
            began = time.process_time()
            loop.run(_STRETCH)
            pair.append(_STRETCH / (time.process_time() - began))
        rates.append((pair[0], pair[1]))
    ratio = statistics.median(a / b for a, b in rates)
    return statistics.median(a for a, _ in rates), statistics.median(b for _, b in rates), ratio


def main() -> None:
    """Print one line a stage and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--late", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick = preset("mnist", "quick").arms[0]
    data = some_images(quick)
    print(f"{data.source}; one thread; torch {torch.__version__}; {arguments.rounds} rounds of {_STRETCH} steps each")
    for name, recipe in (("quick, batch 50", quick), ("paper, batch 200", replace(quick, batch=200))):
        start = initial_weights(recipe, 0)
        own = OwnLoop(recipe, data, start)
        for stage, before in (("from the start", 0), (f"after {arguments.late:,} steps", arguments.late)):
            own.run(before)
            plain = PlainLoop(recipe, data, own.weights())
            mine, theirs, ratio = compare(own, plain, arguments.rounds)
            print(f"{name}, {stage}: {mine:,.0f} steps/s against {theirs:,.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
