"""Run a calibration: follow every run, draw the conclusions, write the report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmtrap.calibrate.acceptance import check
from llmtrap.calibrate.conclusions import SMALL_NETWORKS, conclude, unfinished
from llmtrap.calibrate.data import check_data
from llmtrap.calibrate.document import CalibrationReport, CaseStudy, Checkpoint, FailedRunRow, Run
from llmtrap.calibrate.findings import counter_examples, onsets, phase_rows, rate_rows, separation_rows
from llmtrap.calibrate.history import History
from llmtrap.calibrate.paper import beside_the_paper
from llmtrap.calibrate.profile import profile_of
from llmtrap.calibrate.settings import CalibrationSettings, FailedRun, PlannedRun, plan
from llmtrap.calibrate.workers import Listener, Workers, read_history, worker_count
from llmtrap.errors import OutputError
from llmtrap.report.document import Tool
from llmtrap.report.write import write_whole

_STUDIED = ("wd0", "wd0.1", "nanda", "float32", "rate-decay")


def calibrate(settings: CalibrationSettings, tell: Listener = lambda _: None) -> CalibrationReport:
    """Train the grokking tasks, follow them through their phases, and say what the detectors are worth there.

    Runs that were followed before, in the same folder, are carried on or taken as they are. Writes `report.json`,
    `report.html` and `calibration.json` (the profile) into the folder.

    Args:
        settings: what to run, and where.
        tell: called with every sign of life.

    Raises:
        UsageError: the settings do not fit together, or the folder holds another run.
        TargetError: the data cannot be found.
        MissingExtraError: torch or accelerate is not installed.
        OutputError: the folder cannot be written.
    """
    began = time.monotonic()
    runs = plan(settings)
    check_data(settings.resolved_task(), settings.data)
    with Workers(worker_count(runs, settings.workers), tell) as workers:
        failed = workers.follow(runs)
        followed = [(run, history) for run in runs if (history := read_history(run)) is not None]
        studies = workers.study([run for run, _ in followed if run.recipe.arm in _STUDIED and run.seed == 0])
    report = report_of(settings, followed, failed, studies, began)
    write(report, settings.out)
    return report


def report_of(
    settings: CalibrationSettings,
    followed: Sequence[tuple[PlannedRun, History]],
    failed: Sequence[FailedRun],
    studies: Sequence[CaseStudy],
    began: float,
) -> CalibrationReport:
    """The report of the runs as far as they have come."""
    followed = sorted(followed, key=lambda pair: _by_meaning(pair[0]))
    histories = [history for _, history in followed]
    checks = tuple(row for history in histories for row in check(history, settings.preset))
    separation, rates = separation_rows(histories), rate_rows(histories)
    exceptions, lags = counter_examples(histories), onsets(histories)
    phases = phase_rows(histories)
    rows = tuple(_run(run, history) for run, history in followed)
    task = settings.resolved_task()
    shown = {key: value for key, value in asdict(settings).items() if key not in ("out", "data", "workers")}
    return CalibrationReport(
        tool=Tool(name="llmtrap", version=importlib.metadata.version("llmtrap")),
        versions=versions(),
        task=task,
        preset=settings.preset,
        settings=_json_types(shown),
        data=tuple(dict.fromkeys(history.source for history in histories)),
        conclusions=(
            *conclude(histories, checks, separation, rates, exceptions, lags),
            *unfinished(rows),
            SMALL_NETWORKS,
        ),
        checks=checks,
        runs=rows,
        phases=phases,
        separation=separation,
        rates=rates,
        counter_examples=exceptions,
        onsets=lags,
        paper=beside_the_paper(task, phases),
        studies=tuple(studies),
        failed=tuple(FailedRunRow(name=run.name, error=run.error) for run in failed),
        seconds=time.monotonic() - began,
    )


def _by_meaning(run: PlannedRun) -> tuple[bool, str, int]:
    """The arm in which all phases are expected first; `plan` sorts by cost, reports by meaning."""
    return run.recipe.arm not in ("wd0", "float32", "rate-decay"), run.recipe.arm, run.seed


def _run(run: PlannedRun, history: History) -> Run:
    points = history.measurements
    last = points[-1]
    recipe = run.recipe
    trained = min(last.step, recipe.frozen_from)
    # The rate of the last stretch tells the rest better than the mean: frozen units make late steps cheaper.
    earlier = next((m for m in points if m.step >= 0.9 * trained), points[0])
    late = (trained - earlier.step) / (last.seconds - earlier.seconds) if last.seconds > earlier.seconds else 0.0
    mean = trained / last.seconds if last.seconds > 0 else 0.0
    left = max(0, min(recipe.steps, recipe.frozen_from) - trained)
    rate = late or mean
    return Run(
        task=recipe.task,
        arm=recipe.arm,
        seed=run.seed,
        purpose=recipe.purpose,
        source=history.source,
        recipe=_json_types(asdict(recipe)),
        scored=history.scored,
        complete=history.complete,
        steps=last.step,
        planned_steps=recipe.steps,
        seconds=last.seconds,
        steps_per_second=mean,
        remaining_seconds=left / rate if rate else 0.0,
        peak_step=history.peak.step,
        checkpoints=tuple(
            Checkpoint(phase=phase, measured=measured)
            for phase, measured in zip(history.labelled.phases, points, strict=True)
        ),
    )


def _json_types(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with lists for tuples, so that a report equals itself read back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def versions() -> dict[str, str]:
    """Versions of all that decides a number."""
    names = ("llmtrap", "torch", "numpy", "scipy", "scikit-learn")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def to_json(report: CalibrationReport) -> str:
    """The report as JSON text, one line a key and one a run, so that its size stays near its content's."""

    def text(value: Any) -> str:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))

    lines = []
    for key, value in report.to_json_dict().items():
        rows = ",\n".join("  " + text(row) for row in value) if isinstance(value, list) else ""
        lines.append(f" {text(key)}: " + (f"[\n{rows}\n ]" if rows else text(value)))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(report: CalibrationReport, folder: Path) -> None:
    """Write the report's outputs and the profile.

    Raises:
        OutputError: the folder cannot be written.
    """
    from llmtrap.calibrate.page import to_html

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error}", file=str(folder)) from error
    write_whole(folder / "report.json", to_json(report).encode(), within=folder)
    write_whole(folder / "report.html", to_html(report).encode(), within=folder)
    if report.runs:
        profile = profile_of([report]).to_json_dict()
        text = json.dumps(profile, indent=1, allow_nan=False) + "\n"
        write_whole(folder / "calibration.json", text.encode(), within=folder)
