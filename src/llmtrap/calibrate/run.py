"""Run a calibration: follow every run, draw the conclusions, write the report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmtrap.calibrate.acceptance import check
from llmtrap.calibrate.conclusions import conclude
from llmtrap.calibrate.data import check_data
from llmtrap.calibrate.document import CalibrationReport, CaseStudy, FailedRun
from llmtrap.calibrate.findings import counter_examples, onsets, phase_rows, rate_rows, separation_rows
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.paper import beside_the_paper
from llmtrap.calibrate.profile import profile_of
from llmtrap.calibrate.settings import CalibrationSettings, plan
from llmtrap.calibrate.workers import Listener, Workers, read_run, worker_count
from llmtrap.report.document import Tool
from llmtrap.report.write import make_folder, write_whole

_STUDIED = ("wd0", "wd0.1", "nanda", "float32", "rate-decay")
_VERSIONED = ("llmtrap", "torch", "numpy", "scipy", "scikit-learn")


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
    planned = plan(settings)
    check_data(settings.resolved_task(), settings.data)
    with Workers(worker_count(planned, settings.workers), tell) as workers:
        failed = workers.follow(planned)
        followed = {run: found for run in planned if (found := read_run(run)) is not None}
        studies = workers.study([run for run in followed if run.recipe.arm in _STUDIED and run.seed == 0])
    report = report_of(settings, tuple(followed.values()), failed, studies, time.monotonic() - began)
    write(report, settings.out)
    return report


def report_of(
    settings: CalibrationSettings,
    runs: Sequence[Run],
    failed: Sequence[FailedRun],
    studies: Sequence[CaseStudy],
    seconds: float,
) -> CalibrationReport:
    """The report of the runs as far as they have come."""
    runs = sorted(runs, key=_by_meaning)
    checks = tuple(row for run in runs for row in check(run, settings.preset))
    separation, rates = separation_rows(runs), rate_rows(runs)
    exceptions, lags, phases = counter_examples(runs), onsets(runs), phase_rows(runs)
    task = settings.resolved_task()
    shown = {key: value for key, value in asdict(settings).items() if key not in ("out", "data", "workers")}
    return CalibrationReport(
        tool=Tool(name="llmtrap", version=importlib.metadata.version("llmtrap")),
        versions=versions(),
        task=task,
        preset=settings.preset,
        settings=shown | {"arms": list(settings.arms)},  # as JSON has it, so that a report equals itself read back
        data=tuple(dict.fromkeys(run.source for run in runs)),
        conclusions=conclude(runs, checks, separation, rates, exceptions, lags),
        checks=checks,
        runs=tuple(runs),
        phases=phases,
        separation=separation,
        rates=rates,
        counter_examples=exceptions,
        onsets=lags,
        paper=beside_the_paper(task, phases),
        studies=tuple(studies),
        failed=tuple(failed),
        seconds=seconds,
    )


def _by_meaning(run: Run) -> tuple[bool, str, int]:
    """The arm in which all phases are expected first; `plan` sorts by cost, reports by meaning."""
    return run.recipe.arm not in ("wd0", "float32", "rate-decay"), run.recipe.arm, run.seed


def versions() -> dict[str, str]:
    """Versions of all that decides a number."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
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

    make_folder(folder, within=folder)
    outputs = {"report.json": to_json(report), "report.html": to_html(report)}
    if report.runs:
        outputs["calibration.json"] = json.dumps(profile_of([report]).to_json_dict(), indent=1, allow_nan=False) + "\n"
    for name, text in outputs.items():
        write_whole(folder / name, text.encode(), within=folder)
