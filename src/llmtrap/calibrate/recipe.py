"""What one training run is: its network, optimiser and length, written down so that two runs can be told apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar, Literal

from pydantic import ConfigDict

Task = Literal["mnist", "digits", "modular-addition", "composition"]
Loss = Literal["mse", "cross-entropy"]

TASKS: tuple[Task, ...] = ("mnist", "digits", "modular-addition", "composition")
_NO_DECISION = ("steps", "purpose", "arm", "checkpoint_every", "stop_after")


@dataclass(frozen=True)
class Recipe:
    """One arm of a calibration: everything but the seed that decides a trajectory."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # a word that no recipe has is a mistake

    task: Task
    arm: str  # the variation, unique within a preset
    purpose: str  # what the arm is there to show, as one sentence for the report
    steps: int
    widths: tuple[int, ...] = ()  # of the MLP's layers, input to output; empty for the transformers
    modulus: int = 0  # p of x + y mod p
    entities: int = 0  # of the composition task, as the three that follow
    relations: int = 0
    degree: int = 0  # facts of which each entity is the subject
    inferred_ratio: float = 0.0  # inferred facts trained on for each atomic fact that they may be made of (φ)
    d_model: int = 0  # width of the transformer's residual stream
    heads: int = 0  # each d_model / heads wide
    d_mlp: int = 0  # hidden width of the transformer's MLP
    layers: int = 1
    gelu: bool = False  # as GPT-2; ReLU, in its place, is three times as fast on a CPU
    init_scale: float = 1.0  # factor on every parameter of the usual initialisation
    train_size: int = 1000  # images, spread evenly over the classes
    train_fraction: float = 0.0  # share of all p² sums that is trained on
    test_size: int = 0  # at most; 0 takes all images that are left
    batch: int = 50  # examples a step; 0 is the whole training set
    loss: Loss = "mse"  # against one-hot targets
    lr: float = 1e-3  # after the warm-up
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    gradient_limit: float = 0.0  # Euclidean norm to which larger gradients of all parameters are cut; 0 for none
    weight_decay: float = 0.0  # decoupled, on every parameter
    weight_decay_until: int | None = None  # the step from which there is none any more
    warmup: int = 0  # steps over which the learning rate rises linearly from 0
    decay: tuple[int, int] | None = None  # first and last step of a linear fall of the learning rate to 0
    dtype: Literal["float32", "float64"] = "float32"  # of weights and optimiser
    checkpoint_every: int = 0  # a checkpoint so often too, beside fewer at log-spaced steps; 0 for those alone
    stop_after: int = 0  # stop once so many checkpoints were anti-grokking; 0 goes on to the end

    @property
    def images(self) -> bool:
        """Whether inputs are images; else they are rows of tokens."""
        return bool(self.widths)

    def learning_rate(self, step: int) -> float:
        """Learning rate of the update that leads from `step` to `step + 1`."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        if self.decay is not None:
            first, last = self.decay
            rate *= min(1.0, max(0.0, (last - step) / (last - first)))
        return rate

    def weight_decay_at(self, step: int) -> float:
        """Weight decay of the update that leads from `step` to `step + 1`."""
        over = self.weight_decay_until is not None and step >= self.weight_decay_until
        return 0.0 if over else self.weight_decay

    @property
    def frozen_from(self) -> int:
        """First step from which the learning rate is exactly 0, so that nothing can change any more."""
        return self.steps if self.decay is None else self.decay[1]

    @property
    def marks(self) -> tuple[int, ...]:
        """Steps at which the run is measured."""
        if not self.checkpoint_every:
            return checkpoint_steps(self.steps)
        regular = range(0, self.steps, self.checkpoint_every)
        return tuple(sorted({*checkpoint_steps(self.steps, per_decade=3), *regular}))

    def longer(self, steps: int) -> Recipe:
        """The same recipe with another length."""
        return replace(self, steps=steps)

    def digest(self) -> str:
        """A key of everything that decides the trajectory; the length is not part of it, so a run can be extended.

        Fields at their defaults are left out, so that a field that is added later changes no key.
        """
        usual = {field.name: field.default for field in fields(self)}
        chosen = {name: value for name, value in asdict(self).items() if value != usual[name]}
        told = {name: value for name, value in chosen.items() if name not in _NO_DECISION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def checkpoint_steps(steps: int, every: int = 10_000, per_decade: int = 10) -> tuple[int, ...]:
    """Steps to measure at: 0, `per_decade` a decade, every `every` steps up to ten times that, and the last.

    Beyond 10 · `every` steps the regular marks thin out to one in ten a decade up, so that a run of 10⁷ steps has some
    hundred checkpoints and not a thousand.
    """
    marks = {0, steps}
    exponent = 0
    while (step := round(10 ** (exponent / per_decade))) < steps:
        marks.add(step)
        exponent += 1
    stride, mark = every, every
    while mark < steps:
        marks.add(mark)
        if mark >= 10 * stride:
            stride *= 10
        mark += stride
    return tuple(sorted(marks))
