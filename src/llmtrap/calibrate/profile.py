"""The calibration profile: what the default thresholds flagged in runs whose phases are known, in a few numbers."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from llmtrap.calibrate.conclusions import OPPOSITE, USEFUL
from llmtrap.calibrate.document import CalibrationReport, Flagged
from llmtrap.calibrate.findings import rate_rows, separation_rows
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.separation import Interval
from llmtrap.models import Model
from llmtrap.report.formatting import join

# The audit's own thresholds: what a verdict rests on, and what is shown beside it.
_DEFAULTS = (("centred", "≥ 1"), ("mean_shift", "≥ 1"), ("alpha_reliable", "< 2"))
_TASKS = {
    "mnist": "MNIST", "digits": "8×8 digits", "modular-addition": "modular addition", "composition": "composed facts",
}  # fmt: skip


class ProfileRuns(Model):
    """Runs behind the rates of one task and arm."""

    task: str
    preset: str
    arm: str
    seeds: tuple[int, ...]
    checkpoints: dict[str, int] = Field(description="checkpoints in each phase")


class ProfileArea(Model):
    """How well one measure tells the collapsed from the grokked checkpoints of one task, over all its arms."""

    task: str
    measure: str
    label: str
    area: Interval


class CalibrationProfile(Model):
    """Rates at the default thresholds, and the runs and versions that they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["llmtrap.calibration-profile/1"] = Field(default="llmtrap.calibration-profile/1", alias="schema")
    versions: dict[str, str]
    data: tuple[str, ...]
    runs: tuple[ProfileRuns, ...]
    rates: tuple[Flagged, ...]
    areas: tuple[ProfileArea, ...]
    sentence: str = Field(description="what an audit report may say of its thresholds")

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)


def load_profile() -> CalibrationProfile:
    """The profile that ships with llmtrap."""
    text = importlib.resources.files("llmtrap.calibrate").joinpath("calibration.json").read_text(encoding="utf-8")
    return CalibrationProfile.model_validate_json(text)


def profile_of(reports: Sequence[CalibrationReport]) -> CalibrationProfile:
    """Pool the runs of several reports into one profile."""
    by_arm: dict[tuple[str, str, str], list[Run]] = {}
    by_task: dict[str, list[Run]] = {}
    for report in reports:
        for run in report.runs:
            by_arm.setdefault((report.preset, run.recipe.task, run.recipe.arm), []).append(run)
            by_task.setdefault(run.recipe.task, []).append(run)
    rates = [
        Flagged.model_validate(row.model_dump(exclude={"origin"}))
        for members in by_task.values()
        for row in rate_rows(members)
        if any(row.measure == measure and row.threshold.endswith(limit) for measure, limit in _DEFAULTS)
    ]
    areas = tuple(area for members in by_task.values() for area in _areas(members))
    return CalibrationProfile(
        versions=reports[0].versions,
        data=tuple(dict.fromkeys(source for report in reports for source in report.data)),
        runs=tuple(_runs(*key, members) for key, members in by_arm.items()),
        rates=tuple(rates),
        areas=areas,
        sentence=_sentence(sum(map(len, by_task.values())), tuple(by_task), areas),
    )


def _runs(preset: str, task: str, arm: str, runs: Sequence[Run]) -> ProfileRuns:
    counts = {str(phase): sum(run.phases.count(phase) for run in runs) for phase in PHASES}
    seeds = tuple(sorted(run.seed for run in runs))
    return ProfileRuns(preset=preset, task=task, arm=arm, seeds=seeds, checkpoints=counts)


def _areas(runs: Sequence[Run]) -> list[ProfileArea]:
    """The measures of one task over all its arms; none where nothing collapsed."""
    rows = separation_rows(runs)
    return [
        ProfileArea(task=row.task, measure=row.measure, label=row.label, area=row.against_grok)
        for row in rows
        if row.arms == rows[-1].arms and row.against_grok is not None
    ]


def _sentence(runs: int, tasks: Sequence[str], areas: Sequence[ProfileArea]) -> str:
    """One sentence that claims no more than was seen."""
    traps = {area.task: area.area for area in areas if area.measure == "centred"}
    told = [f"{traps[task].words()} on {_TASKS[task]}{_sense(traps[task])}" for task in tasks if task in traps]
    text = f"In {runs} training runs of small networks, "
    if told:
        text += (
            "centred traps told checkpoints that had lost 10 points of test accuracy, while still fitting their "
            f"training data, from well-generalising ones with an AUC of {join(told)}"
        )
    silent = [_TASKS[task] for task in tasks if task not in traps]
    if silent:
        text += ("; " if told else "") + f"on {join(silent)} nothing collapsed, so that traps could tell nothing"
    norms = [f"{area.area.value:.2f}" for area in areas if area.measure == "l2"]
    if norms:
        text += f"; the l2 norm alone had {join(norms)}{' there' if len(norms) == 1 else ', in this order'}"
    return text + "; these rates are of those networks and are not known for language models."


def _sense(interval: Interval) -> str:
    """Where traps say nothing, or the opposite of what they are held to say."""
    if interval.value < OPPOSITE:
        return ", where they mark the healthy ones"
    return ", which is as good as nothing" if interval.value < USEFUL else ""
