"""The calibration report as a document: what was run, what was seen, and what follows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from llmtrap.calibrate.measurement import Measurement
from llmtrap.models import Model
from llmtrap.report.document import Tool
from llmtrap.spectra.measured import Histogram


class Interval(Model):
    """A number with its 95 % interval over runs; no interval where there are fewer than three runs."""

    value: float
    low: float | None = None
    high: float | None = None


class Checkpoint(Model):
    """A measured checkpoint with its phase."""

    phase: str
    measured: Measurement


class Run(Model):
    """One followed run."""

    task: str
    arm: str
    seed: int
    purpose: str
    source: str
    recipe: dict[str, Any]
    scored: tuple[str, ...] = Field(description="matrices whose measures count")
    complete: bool = Field(description="whether it reached the step it was to reach")
    steps: int = Field(description="updates made so far")
    planned_steps: int
    seconds: float = Field(description="CPU seconds of training, without measuring")
    steps_per_second: float
    remaining_seconds: float = Field(description="estimate for the rest, at the rate of the run's last tenth")
    peak_step: int
    checkpoints: tuple[Checkpoint, ...]


class FailedRunRow(Model):
    """A run that diverged."""

    name: str
    error: str


class Check(Model):
    """One acceptance rule on one run."""

    task: str
    arm: str
    seed: int
    rule: str
    found: str
    passed: bool


class PhaseRow(Model):
    """One measure in each phase: mean and standard deviation over runs, of each run's representative checkpoint."""

    arm: str
    measure: str
    cells: dict[str, tuple[float, float, int] | None] = Field(description="phase -> mean, deviation, runs")


class SeparationRow(Model):
    """How well one measure alone tells anti-grokking from the other two phases."""

    task: str
    arms: str
    measure: str
    label: str
    kind: str
    sign: int
    against_grok: Interval | None
    against_pre: Interval | None
    runs: int
    anti: int
    grok: int
    pre: int


class RateRow(Model):
    """What a threshold flags in each phase. `origin` says whether theory gave it or these very runs."""

    task: str
    arms: str
    measure: str
    threshold: str
    origin: Literal["theory", "5 % of grokked checkpoints, in these runs"]
    anti: Interval | None = Field(description="share of anti-grokking checkpoints flagged (TPR)")
    grok: Interval | None = Field(description="share of grokked checkpoints flagged (FPR)")
    pre: Interval | None = Field(description="share of pre-grokking checkpoints flagged (FPR)")


class CounterExample(Model):
    """A run that speaks against the detector."""

    task: str
    arm: str
    seed: int
    kind: Literal["traps without collapse", "collapse without traps"]
    words: str


class Onset(Model):
    """When the first traps were seen, against what accuracy had already been lost."""

    task: str
    arm: str
    seed: int
    peak_step: int
    traps_at_peak: int = Field(default=0, description="centred traps at the peak already, where nothing is lost")
    trap_step: int | None = Field(description="first checkpoint after the peak with a centred trap")
    lost: float | None = Field(description="test accuracy lost by then, from the peak")


class PaperRow(Model):
    """One number of the papers beside ours."""

    source: str
    quantity: str
    phase: str
    paper: str
    here: str


class Picture(Model):
    """A vector over pixels, shown as an image."""

    phase: str
    step: int
    title: str
    side: int
    pixels: tuple[float, ...]
    nearest: float = Field(description="largest |correlation| with a training image")


class RowSimilarity(Model):
    """How much the largest rows of the first layer look like training images, in one phase."""

    phase: str
    step: int
    rows: int
    mean_nearest: float = Field(description="mean over rows of the largest |correlation| with a training image")
    control: float = Field(description="the same for as many rows at initialisation")


class Ablation(Model):
    """One intervention on one layer of one checkpoint."""

    phase: str
    step: int
    layer: str
    cause: str = Field(description="all, mean_shift or centred")
    trap: str = Field(description="which: a number from 1, or 'all N'")
    action: str = Field(description="removed, replaced, or a control of the same norm")
    norm: float
    train_accuracy: float
    test_accuracy: float
    train_change: float
    test_change: float
    jsd: dict[str, float] = Field(description="probe -> mean Jensen-Shannon divergence at T = 1, nats")
    class_change: tuple[float, ...] = Field(description="change of test accuracy by class")


class SpectrumPicture(Model):
    """Spectra of one matrix in one phase: the original, and the shuffled one with its edge."""

    phase: str
    step: int
    layer: str
    original: Histogram
    shuffled: Histogram
    edge: float
    xmin: float | None
    alpha: float | None


class Confusion(Model):
    """Test examples by true class (rows) and predicted class (columns), in one phase."""

    phase: str
    step: int
    counts: tuple[tuple[int, ...], ...]


class CaseStudy(Model):
    """One run looked at closely, a checkpoint a phase."""

    task: str
    arm: str
    seed: int
    pictures: tuple[Picture, ...]
    rows: tuple[RowSimilarity, ...]
    ablations: tuple[Ablation, ...]
    spectra: tuple[SpectrumPicture, ...]
    confusions: tuple[Confusion, ...]


class CalibrationReport(Model):
    """One calibration, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["llmtrap.calibration/1"] = Field(default="llmtrap.calibration/1", alias="schema")
    tool: Tool
    versions: dict[str, str]
    task: str
    preset: str
    settings: dict[str, Any]
    data: tuple[str, ...]
    conclusions: tuple[str, ...]
    checks: tuple[Check, ...]
    runs: tuple[Run, ...]
    phases: tuple[PhaseRow, ...]
    separation: tuple[SeparationRow, ...]
    rates: tuple[RateRow, ...]
    counter_examples: tuple[CounterExample, ...]
    onsets: tuple[Onset, ...]
    paper: tuple[PaperRow, ...]
    studies: tuple[CaseStudy, ...]
    failed: tuple[FailedRunRow, ...] = ()
    seconds: float

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
