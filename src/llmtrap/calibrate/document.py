"""The calibration report as a document: what was run, what was seen, and what follows."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from llmtrap.calibrate import older
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.separation import Interval
from llmtrap.models import Model
from llmtrap.report.document import Tool
from llmtrap.spectra.measured import Histogram

SCHEMA: Final = "llmtrap.calibration/2"


class FailedRun(Model):
    """A run that could not be followed to its end, and why."""

    name: str
    error: str


class OfRun(Model):
    """Something said of one run."""

    task: str
    arm: str
    seed: int


class Check(OfRun):
    """One acceptance rule on one run."""

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


class Flagged(Model):
    """What a threshold flags in each phase of one task, with 95 % intervals over runs."""

    task: str
    measure: str
    threshold: str
    arms: str
    anti: Interval | None = Field(description="share of anti-grokking checkpoints flagged (TPR)")
    grok: Interval | None = Field(description="share of grokked checkpoints flagged (FPR)")
    pre: Interval | None = Field(description="share of pre-grokking checkpoints flagged (FPR)")


class RateRow(Flagged):
    """The same, and whether theory gave the threshold or these very runs."""

    origin: Literal["theory", "5 % of grokked checkpoints, in these runs"]


class CounterExample(OfRun):
    """A run that speaks against the detector."""

    kind: Literal["traps without collapse", "collapse without traps"]
    words: str


class Onset(OfRun):
    """When the first traps were seen, against what accuracy had already been lost."""

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


class AtStep(Model):
    """Something seen in one checkpoint of a run looked at closely."""

    phase: str
    step: int


class Picture(AtStep):
    """A vector over pixels, shown as an image."""

    title: str
    side: int
    pixels: tuple[float, ...]
    nearest: float = Field(description="largest |correlation| with a training image")


class RowSimilarity(AtStep):
    """How much the largest rows of the first layer look like training images, in one phase."""

    rows: int
    mean_nearest: float = Field(description="mean over rows of the largest |correlation| with a training image")
    control: float = Field(description="the same for as many rows at initialisation")


class Ablation(AtStep):
    """One intervention on one layer of one checkpoint."""

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


class SpectrumPicture(AtStep):
    """Spectra of one matrix in one phase: the original, and the shuffled one with its edge."""

    layer: str
    original: Histogram
    shuffled: Histogram
    edge: float
    xmin: float | None
    alpha: float | None


class Confusion(AtStep):
    """Test examples by true class (rows) and predicted class (columns), in one phase."""

    counts: tuple[tuple[int, ...], ...]


class CaseStudy(OfRun):
    """One run looked at closely, a checkpoint a phase."""

    pictures: tuple[Picture, ...]
    rows: tuple[RowSimilarity, ...]
    ablations: tuple[Ablation, ...]
    spectra: tuple[SpectrumPicture, ...]
    confusions: tuple[Confusion, ...]


class CalibrationReport(Model):
    """One calibration, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["llmtrap.calibration/2"] = Field(default=SCHEMA, alias="schema")
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
    failed: tuple[FailedRun, ...] = ()
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_schema(cls, given: Any) -> Any:
        is_older = isinstance(given, dict) and given.get("schema") == older.OLDER
        return older.report(given, SCHEMA) if is_older else given

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)
