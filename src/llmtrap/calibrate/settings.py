"""What a calibration is asked to do, and what it tells while it does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llmtrap.calibrate.data import mnist_at_hand
from llmtrap.calibrate.presets import PresetName, preset
from llmtrap.calibrate.recipe import Recipe, Task
from llmtrap.errors import UsageError


@dataclass(frozen=True)
class CalibrationSettings:
    """What to run.

    Attributes:
        task: None takes MNIST where it is at hand, else the digits.
        preset: quick, full or paper.
        data: for MNIST, a file, a folder or "hub".
        seeds: how many seeds an arm; None for the preset's own.
        arms: names of the arms to run; empty for all.
        steps: length of every run; None for the preset's own.
        dtype: float width; None for the preset's own.
        out: folder for runs and reports.
        workers: runs at a time; None for one a core.
        device: "auto" takes a GPU where there is one, as accelerate finds it.
        train: False reports on the runs in the folder as far as they have come.
    """

    out: Path
    task: Task | None = None
    preset: PresetName = "quick"
    data: str | None = None
    seeds: int | None = None
    arms: tuple[str, ...] = ()
    steps: int | None = None
    dtype: Literal["float32", "float64"] | None = None
    workers: int | None = None
    device: Literal["auto", "cpu"] = "auto"
    train: bool = True

    def placed(self, out: Path | None) -> CalibrationSettings:
        """The same with the task decided, and with the folder given or the usual one under llmtrap-reports."""
        task = self.resolved_task()
        usual = Path("llmtrap-reports") / f"calibrate-{task}-{self.preset}"
        return replace(self, task=task, out=out or usual)

    def resolved_task(self) -> Task:
        """The task that will be run."""
        if self.task is not None:
            return self.task
        return "mnist" if self.data is not None or mnist_at_hand() is not None else "digits"


@dataclass(frozen=True)
class PlannedRun:
    """One run to follow."""

    recipe: Recipe
    seed: int
    folder: Path
    data: str | None
    device: Literal["auto", "cpu"]
    train: bool = True

    @property
    def name(self) -> str:
        """What progress and errors call it."""
        return f"{self.recipe.task} {self.recipe.arm} seed {self.seed}"


@dataclass(frozen=True)
class RunEvent:
    """A sign of life of one run. Accuracies are None where they were not looked at."""

    name: str
    step: int
    steps: int
    train_accuracy: float | None
    test_accuracy: float | None
    finished: bool = False


def plan(settings: CalibrationSettings) -> tuple[PlannedRun, ...]:
    """Every run of a calibration, the longest first, so that no core is left alone with it at the end.

    Raises:
        UsageError: an arm that the preset does not have, or a number below 1.
    """
    chosen = preset(settings.resolved_task(), settings.preset)
    known = {arm.arm for arm in chosen.arms}
    if unknown := sorted(set(settings.arms) - known):
        raise UsageError(f"no arm {', '.join(unknown)}", remedy=f"This preset has: {', '.join(sorted(known))}")
    for what, number in (("seeds", settings.seeds), ("steps", settings.steps), ("workers", settings.workers)):
        if number is not None and number < 1:
            raise UsageError(f"--{what} must be at least 1, not {number}")
    runs = []
    for arm in chosen.arms:
        if settings.arms and arm.arm not in settings.arms:
            continue
        recipe = replace(arm, steps=settings.steps or arm.steps, dtype=settings.dtype or arm.dtype)
        for seed in range(settings.seeds or chosen.seeds):
            folder = settings.out / "runs" / f"{recipe.task}-{recipe.arm}-seed{seed}"
            runs.append(PlannedRun(recipe, seed, folder, settings.data, settings.device, settings.train))
    return tuple(sorted(runs, key=lambda run: (-_cost(run.recipe), run.seed)))


def _cost(recipe: Recipe) -> float:
    """Roughly what a run costs: a decayed one stops early, and one with weight decay keeps more weights alive."""
    return min(recipe.steps, recipe.frozen_from) * (1.2 if recipe.weight_decay else 1.0)
