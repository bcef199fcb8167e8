"""Hold a point of a trajectory against the point before it, or a checkpoint against a trajectory's past."""

from __future__ import annotations

import datetime
from pathlib import Path

from llmtrap.errors import UsageError
from llmtrap.gate.document import Judgement
from llmtrap.gate.judge import judge
from llmtrap.gate.matching import CheckpointContents, match
from llmtrap.gate.policy_file import LoadedPolicy
from llmtrap.report.document import Report
from llmtrap.trajectory.document import Trajectory, report_at
from llmtrap.trajectory.read import read_trajectory
from llmtrap.trajectory.steps import step_of


def judge_point(report: Report, before: Report | None, policy: LoadedPolicy) -> Judgement:
    """Judge a checkpoint against the one before it by the gate's rules.

    Two reports do not hold all that a gate asks for, so that what is not violated is called incomplete at best.

    Args:
        report: of the checkpoint.
        before: of the one before; None judges by the absolute rules alone.
        policy: the rules.
    """
    matched = match(
        CheckpointContents.of_report(report), None if before is None else CheckpointContents.of_report(before)
    )
    return judge(matched, policy, datetime.datetime.now(tz=datetime.UTC).date())


def past_of(text: str, target: str) -> Report:
    """The report that a checkpoint is judged against: the last point of a trajectory that comes before it.

    Args:
        text: the trajectory's file, or FILE@STEP for the point of a step.
        target: what is judged. Where its name gives a step, points of that step and later ones are not its past.

    Raises:
        TargetError: the file is no trajectory.
        UsageError: it has no such point, or none before the target.
    """
    path, at, wanted = (text, "", "") if Path(text).exists() else text.rpartition("@")
    if at and not wanted.isdecimal():
        raise UsageError(f"--trajectory {text}: '{wanted}' is no step", remedy="Give FILE, or FILE@STEP as FILE@1000")
    trajectory = read_trajectory(Path(path or wanted))
    if at:
        places = [place for place, point in enumerate(trajectory.points) if point.step == int(wanted)]
        missing = f"the trajectory has no step {wanted}"
    else:
        places = _before(trajectory, target)
        missing = "no point of the trajectory comes before the target"
    if not places:
        labels = ", ".join(point.label for point in trajectory.points[:8])
        more = ", …" if len(trajectory.points) > 8 else ""
        raise UsageError(missing, file=path, remedy=f"Its points are {labels}{more}")
    return report_at(trajectory, places[-1])


def _before(trajectory: Trajectory, target: str) -> list[int]:
    mine = step_of(target)
    steps = [step_of(point.name) for point in trajectory.points]
    return [place for place, step in enumerate(steps) if mine is None or step is None or step < mine]
