"""The calibration profile: what the default thresholds flagged in runs whose phases are known, in a few numbers."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from llmtrap.calibrate.document import CalibrationReport, Interval, Run
from llmtrap.calibrate.findings import rate_rows, separation_rows
from llmtrap.calibrate.history import History
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.recipe import Recipe
from llmtrap.models import Model
from llmtrap.report.formatting import join

# AUCs between these say nothing; below the first, traps mark the healthy checkpoints.
_OPPOSITE, _USEFUL = 0.4, 0.6
# The audit's own thresholds: what a verdict rests on, and what is shown beside it.
_DEFAULTS = (("centred", "≥ 1"), ("mean_shift", "≥ 1"), ("alpha_reliable", "< 2"))


class ProfileRuns(Model):
    """Runs behind the rates of one task and arm."""

    task: str
    preset: str
    arm: str
    seeds: tuple[int, ...]
    checkpoints: dict[str, int] = Field(description="checkpoints in each phase")


class ProfileRate(Model):
    """What one default threshold flags in each phase of one task, with 95 % intervals over runs."""

    task: str
    measure: str
    threshold: str
    arms: str
    anti: Interval | None
    grok: Interval | None
    pre: Interval | None


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
    rates: tuple[ProfileRate, ...]
    areas: tuple[ProfileArea, ...]
    sentence: str = Field(description="what an audit report may say of its thresholds")

    def to_json_dict(self) -> dict[str, Any]:
        """The document as JSON types, with its real key names."""
        return self.model_dump(mode="json", by_alias=True)


def load_profile() -> CalibrationProfile:
    """The profile that ships with llmtrap."""
    text = importlib.resources.files("llmtrap.calibrate").joinpath("calibration.json").read_text(encoding="utf-8")
    return CalibrationProfile.model_validate_json(text)


def history_of(run: Run) -> History:
    """A followed run, from the report that tells of it."""
    recipe = TypeAdapter(Recipe).validate_python(run.recipe)
    return History(recipe, run.seed, run.source, run.scored, tuple(point.measured for point in run.checkpoints))


def profile_of(reports: Sequence[CalibrationReport]) -> CalibrationProfile:
    """Pool the runs of several reports into one profile."""
    histories = [(report.preset, history_of(run)) for report in reports for run in report.runs]
    runs: list[ProfileRuns] = []
    for key in dict.fromkeys((preset, h.recipe.task, h.recipe.arm) for preset, h in histories):
        members = [h for preset, h in histories if (preset, h.recipe.task, h.recipe.arm) == key]
        counts = {str(phase): sum(len(h.labelled.members(phase)) for h in members) for phase in PHASES}
        seeds = tuple(sorted(h.seed for h in members))
        runs.append(ProfileRuns(preset=key[0], task=key[1], arm=key[2], seeds=seeds, checkpoints=counts))
    by_task = {
        task: [h for _, h in histories if h.recipe.task == task]
        for task in dict.fromkeys(h.recipe.task for _, h in histories)
    }
    rates = [
        ProfileRate(
            task=row.task, measure=row.measure, threshold=row.threshold, arms=row.arms,
            anti=row.anti, grok=row.grok, pre=row.pre,
        )
        for members in by_task.values()
        for row in rate_rows(members)
        if any(row.measure == measure and row.threshold.endswith(limit) for measure, limit in _DEFAULTS)
    ]  # fmt: skip
    areas = tuple(area for members in by_task.values() for area in _areas(members))
    return CalibrationProfile(
        versions=reports[0].versions,
        data=tuple(dict.fromkeys(source for report in reports for source in report.data)),
        runs=tuple(runs),
        rates=tuple(rates),
        areas=areas,
        sentence=_sentence(len(histories), tuple(by_task), areas),
    )


def _areas(histories: Sequence[History]) -> list[ProfileArea]:
    """The measures of one task over all its arms; none where nothing collapsed."""
    rows = separation_rows(histories)
    widest = rows[-1].arms if rows else ""
    return [
        ProfileArea(task=row.task, measure=row.measure, label=row.label, area=row.against_grok)
        for row in rows
        if row.arms == widest and row.against_grok is not None
    ]


_TASKS = {
    "mnist": "MNIST", "digits": "8×8 digits", "modular-addition": "modular addition", "composition": "composed facts",
}  # fmt: skip


def _sentence(runs: int, tasks: Sequence[str], areas: Sequence[ProfileArea]) -> str:
    """One sentence that claims no more than was seen."""
    traps = {area.task: area.area for area in areas if area.measure == "centred"}
    told = [f"{_area(traps[task])} on {_TASKS[task]}{_sense(traps[task])}" for task in tasks if task in traps]
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


def _area(interval: Interval) -> str:
    text = f"{interval.value:.2f}"
    return text if interval.low is None else f"{text} ({interval.low:.2f} to {interval.high:.2f})"


def _sense(interval: Interval) -> str:
    """Where traps say nothing, or the opposite of what they are held to say."""
    if interval.value < _OPPOSITE:
        return ", where they mark the healthy ones"
    return ", which is as good as nothing" if interval.value < _USEFUL else ""
