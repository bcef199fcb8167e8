"""What one training run is: its network, optimiser and length, written down so that two runs can be told apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

Task = Literal["mnist", "digits", "modular-addition", "composition"]
Loss = Literal["mse", "cross-entropy"]

TASKS: tuple[Task, ...] = ("mnist", "digits", "modular-addition", "composition")


@dataclass(frozen=True)
class Recipe:
    """One arm of a calibration: everything but the seed that decides a trajectory.

    Attributes:
        task: which data and which network.
        arm: short name of the variation, unique within a preset.
        purpose: what the arm is there to show, as one sentence for the report.
        widths: of the MLP's layers, input to output; empty for the transformers.
        modulus: p of x + y mod p; 0 for the other tasks.
        entities: of the composition task.
        relations: of the composition task.
        degree: facts of which each entity is the subject.
        inferred_ratio: inferred facts trained on for each atomic fact that they may be made of (φ).
        d_model: width of the transformer's residual stream.
        heads: attention heads, each d_model / heads wide.
        d_mlp: hidden width of the transformer's MLP.
        layers: of the transformer.
        gelu: whether its MLP has GELU (as GPT-2) in the place of ReLU, which is three times as fast on a CPU.
        init_scale: factor on every parameter of the usual initialisation (see `networks.initial_weights`).
        train_size: training examples, spread evenly over the classes (images).
        train_fraction: share of all p² sums that is trained on (modular addition).
        test_size: test images at most; 0 takes all that are left.
        batch: examples a step; 0 is the whole training set.
        loss: mean squared error against one-hot targets, or cross-entropy.
        lr: learning rate after the warm-up.
        betas: of AdamW.
        eps: of AdamW.
        gradient_limit: Euclidean norm to which larger gradients of all parameters together are cut; 0 for none.
        weight_decay: of AdamW, decoupled, on every parameter.
        weight_decay_until: the step from which there is no weight decay any more; None keeps it to the end.
        warmup: steps over which the learning rate rises linearly from 0.
        decay: first and last step of a linear fall of the learning rate to 0, or None.
        steps: length of the run.
        dtype: float width of weights and optimiser.
        checkpoint_every: a checkpoint so often too, beside fewer at log-spaced steps; 0 for log-spaced ones alone.
        stop_after: stop once so many checkpoints were anti-grokking; 0 goes on to the end.
    """

    task: Task
    arm: str
    purpose: str
    steps: int
    widths: tuple[int, ...] = ()
    modulus: int = 0
    entities: int = 0
    relations: int = 0
    degree: int = 0
    inferred_ratio: float = 0.0
    d_model: int = 0
    heads: int = 0
    d_mlp: int = 0
    layers: int = 1
    gelu: bool = False
    init_scale: float = 1.0
    train_size: int = 1000
    train_fraction: float = 0.0
    test_size: int = 0
    batch: int = 50
    loss: Loss = "mse"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    gradient_limit: float = 0.0
    weight_decay: float = 0.0
    weight_decay_until: int | None = None
    warmup: int = 0
    decay: tuple[int, int] | None = None
    dtype: Literal["float32", "float64"] = "float32"
    checkpoint_every: int = 0
    stop_after: int = 0

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
        for words_only in ("steps", "purpose", "arm", "checkpoint_every", "stop_after"):
            chosen.pop(words_only, None)
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


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
