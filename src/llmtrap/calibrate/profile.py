"""The calibration profile: what the default thresholds flagged in runs whose phases are known, in a few numbers."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from llmtrap.calibrate.document import CalibrationReport, Interval, Run
from llmtrap.calibrate.findings import rate_rows
from llmtrap.calibrate.history import History
from llmtrap.calibrate.phases import PHASES
from llmtrap.calibrate.recipe import Recipe
from llmtrap.report.document import Model

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
    """What one default threshold flags in each phase, with 95 % intervals over runs."""

    measure: str
    threshold: str
    arms: str
    anti: Interval | None
    grok: Interval | None
    pre: Interval | None


class CalibrationProfile(Model):
    """Rates at the default thresholds, and the runs and versions that they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["llmtrap.calibration-profile/1"] = Field(default="llmtrap.calibration-profile/1", alias="schema")
    versions: dict[str, str]
    data: tuple[str, ...]
    runs: tuple[ProfileRuns, ...]
    rates: tuple[ProfileRate, ...]
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
    rates = [
        ProfileRate(
            measure=row.measure, threshold=row.threshold, arms=row.arms, anti=row.anti, grok=row.grok, pre=row.pre
        )
        for row in rate_rows([h for _, h in histories])
        if any(row.measure == measure and row.threshold.endswith(limit) for measure, limit in _DEFAULTS)
    ]
    return CalibrationProfile(
        versions=reports[0].versions,
        data=tuple(dict.fromkeys(source for report in reports for source in report.data)),
        runs=tuple(runs),
        rates=tuple(rates),
        sentence=_sentence(runs, rates),
    )


def _sentence(runs: Sequence[ProfileRuns], rates: Sequence[ProfileRate]) -> str:
    """One sentence that claims no more than was seen."""
    count = sum(len(run.seeds) for run in runs)
    tasks = " and ".join(
        {"mnist": "MNIST", "digits": "8×8 digits", "modular-addition": "modular addition"}[task]
        for task in dict.fromkeys(run.task for run in runs)
    )

    def share(arms: str, phase: Literal["anti", "grok"]) -> str:
        row = next((r for r in rates if r.measure == "centred" and r.arms == arms), None)
        interval = None if row is None else getattr(row, phase)
        return "none" if interval is None else f"{100 * interval.value:.0f} %"

    text = (
        f"In {count} training runs of small networks on {tasks}, at least one centred trap was found in "
        f"{share('without weight decay', 'anti')} of the checkpoints that had lost 10 points of test accuracy while "
        f"still fitting their training data and in {share('without weight decay', 'grok')} of the well-generalising "
        "ones, without weight decay"
    )
    if any(r.arms == "with weight decay" for r in rates):
        text += f"; with weight decay {share('with weight decay', 'grok')} of the well-generalising ones had one too"
    return text + "; these rates are of those networks and are not known for language models."
