"""One run as it was followed: its recipe, its measured checkpoints, and the phase of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.calibrate.phases import Labelled, Phase, label
from llmtrap.calibrate.recipe import Recipe


@dataclass(frozen=True)
class History:
    """A followed run.

    Attributes:
        recipe: what was trained.
        seed: of the run.
        source: the data, in words.
        scored: names of the matrices whose measures count (all but a narrow head).
        measurements: by step, at least one.
    """

    recipe: Recipe
    seed: int
    source: str
    scored: tuple[str, ...]
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        """What reports and error messages call the run."""
        return f"{self.recipe.task} {self.recipe.arm} seed {self.seed}"

    @property
    def decayed(self) -> bool:
        """Whether the run has weight decay to its end."""
        return self.recipe.weight_decay > 0 and self.recipe.weight_decay_until is None

    @cached_property
    def labelled(self) -> Labelled:
        """The phase of each checkpoint."""
        return label(
            [measured.train_accuracy for measured in self.measurements],
            [measured.test_accuracy for measured in self.measurements],
        )

    @property
    def peak(self) -> Measurement:
        """The checkpoint of highest test accuracy."""
        return self.measurements[self.labelled.peak]

    @property
    def last(self) -> Measurement:
        """The end of the run."""
        return self.measurements[-1]

    @property
    def complete(self) -> bool:
        """Whether the run has reached the step it was to reach, or the collapse at which it was to stop."""
        return self.last.step >= self.recipe.steps or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether enough checkpoints were anti-grokking for a run that stops there."""
        return 0 < self.recipe.stop_after <= len(self.labelled.members("anti-grok"))

    def phase(self, phase: Phase) -> tuple[Measurement, ...]:
        """The checkpoints in a phase."""
        return tuple(self.measurements[index] for index in self.labelled.members(phase))

    def representative(self, phase: Phase) -> Measurement | None:
        """The checkpoint to show for a phase."""
        index = self.labelled.representative(phase)
        return None if index is None else self.measurements[index]

    def layers(self, measured: Measurement) -> tuple[Layer, ...]:
        """The matrices of a checkpoint whose measures count."""
        return tuple(layer for layer in measured.layers if layer.name in self.scored)

    def centred(self, measured: Measurement) -> int:
        """Centred traps over the matrices that count."""
        return sum(layer.centred for layer in self.layers(measured))
