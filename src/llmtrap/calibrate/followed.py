"""One run as it was followed: its recipe, its measured checkpoints, and the phase of each."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field, computed_field, model_validator

from llmtrap.calibrate.measurement import Layer, Measurement
from llmtrap.calibrate.phases import Labelled, Phase, label
from llmtrap.calibrate.recipe import Recipe
from llmtrap.models import Model


class Run(Model):
    """A followed run. What follows from its checkpoints is written for readers, and made anew when it is read."""

    recipe: Recipe
    seed: int
    source: str = Field(description="the data, in words")
    scored: tuple[str, ...] = Field(description="matrices whose measures count: all but a narrow head")
    checkpoints: tuple[Measurement, ...] = Field(min_length=1, description="by step")

    @model_validator(mode="before")
    @classmethod
    def _given_alone(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        return {key: value for key, value in written.items() if key not in cls.model_computed_fields}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phase of each checkpoint."""
        return self.labelled.phases

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_step(self) -> int:
        """The step of highest test accuracy."""
        return self.peak.step

    @computed_field  # type: ignore[prop-decorator]
    @property
    def complete(self) -> bool:
        """Whether the run has reached the step it was to reach, or the collapse at which it was to stop."""
        return self.last.step >= self.recipe.steps or self.stopped

    @computed_field  # type: ignore[prop-decorator]
    @property
    def steps_per_second(self) -> float:
        """Steps a CPU second of training, in the mean."""
        return self._trained / self.last.seconds if self.last.seconds > 0 else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def remaining_seconds(self) -> float:
        """CPU seconds for the rest, at the rate of the last tenth: frozen units make late steps cheaper."""
        done, last = self._trained, self.last
        earlier = next((m for m in self.checkpoints if m.step >= 0.9 * done), self.checkpoints[0])
        late = (done - earlier.step) / (last.seconds - earlier.seconds) if last.seconds > earlier.seconds else 0.0
        rate = late or self.steps_per_second
        left = max(0, min(self.recipe.steps, self.recipe.frozen_from) - done)
        return left / rate if rate else 0.0

    @property
    def _trained(self) -> int:
        return min(self.last.step, self.recipe.frozen_from)

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
        """Peak and phases."""
        points = self.checkpoints
        return label([point.train_accuracy for point in points], [point.test_accuracy for point in points])

    @property
    def peak(self) -> Measurement:
        """The checkpoint of highest test accuracy."""
        return self.checkpoints[self.labelled.peak]

    @property
    def last(self) -> Measurement:
        """The end of the run."""
        return self.checkpoints[-1]

    @property
    def lost(self) -> float:
        """Test accuracy lost from the peak to the end."""
        return self.peak.test_accuracy - self.last.test_accuracy

    @property
    def stopped(self) -> bool:
        """Whether enough checkpoints were anti-grokking for a run that stops there."""
        return 0 < self.recipe.stop_after <= len(self.labelled.members("anti-grok"))

    def phase(self, phase: Phase) -> tuple[Measurement, ...]:
        """The checkpoints in a phase."""
        return tuple(self.checkpoints[index] for index in self.labelled.members(phase))

    def representative(self, phase: Phase) -> Measurement | None:
        """The checkpoint to show for a phase."""
        index = self.labelled.representative(phase)
        return None if index is None else self.checkpoints[index]

    def layers(self, measured: Measurement) -> tuple[Layer, ...]:
        """The matrices of a checkpoint whose measures count."""
        return tuple(layer for layer in measured.layers if layer.name in self.scored)

    def centred(self, measured: Measurement) -> int:
        """Centred traps over the matrices that count."""
        return sum(layer.traps.centred for layer in self.layers(measured))
