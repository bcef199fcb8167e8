"""`llmtrap calibrate --from-trajectory`: what tells good from collapsed checkpoints of a user's own runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmtrap.calibrate.own_runs import OwnRow, OwnRun, read_scores, separate
from llmtrap.calibrate.phases import DROP, NEAR_PEAK
from llmtrap.errors import UsageError
from llmtrap.report.formatting import plural
from llmtrap.trajectory.document import matrices_at
from llmtrap.trajectory.read import read_trajectory

_SPLIT = 0.6


def show_own_runs(trajectories: Sequence[Path], scores: Sequence[Path], console: Console) -> None:
    """Read the runs, and print a line a measure.

    Args:
        trajectories: files of `llmtrap trajectory --json` or `llmtrap watch`.
        scores: a table of test scores for each of them, in the same order.
        console: where to print.

    Raises:
        UsageError: not as many tables as trajectories, or nothing to tell apart.
        TargetError: a file is not there or is not what it should be.
    """
    if not trajectories or len(trajectories) != len(scores):
        raise UsageError(
            f"{plural(len(trajectories), 'trajectory')} and {plural(len(scores), 'table')} of scores",
            remedy="Give --scores FILE once for each --from-trajectory FILE, in the same order",
        )
    runs = [_run(file, table) for file, table in zip(trajectories, scores, strict=True)]
    rows = separate(runs)
    good, collapsed = (sum(len(getattr(run, kind)()) for run in runs) for kind in ("good", "collapsed"))
    console.print(
        f"{plural(len(runs), 'run')}: {good} good checkpoints (within {NEAR_PEAK:.2f} of their run's best score), "
        f"{collapsed} collapsed ones ({DROP:.2f} below it, later)."
    )
    table = Table("measure", "overfitted when", "AUC, collapsed against good", box=None, pad_edge=False)
    for row in sorted(rows, key=lambda row: -1.0 if row.area is None else row.area.value, reverse=True):
        table.add_row(Text(row.label), row.bad_when, _words(row))
    console.print(table)
    if len(runs) < 3:
        console.print("Fewer than three runs: no interval, since checkpoints of one run are not independent.")
    console.print(_verdict(rows))


def _run(file: Path, table: Path) -> OwnRun:
    trajectory = read_trajectory(file)
    matrices = {}
    for place, point in enumerate(trajectory.points):
        if point.step is not None:
            matrices[point.step] = tuple(matrices_at(trajectory, place).values())
    return OwnRun(matrices, read_scores(table))


def _words(row: OwnRow) -> str:
    return "not measured" if row.area is None else row.area.words()


def _verdict(rows: Sequence[OwnRow]) -> str:
    """Whether traps tell anything here, and what tells as much."""
    traps = rows[0].area
    if traps is None:
        return "Traps were not measured."
    if traps.value < 1 - _SPLIT:
        said = "Here traps mark the good checkpoints: they say the opposite"
    else:
        said = "Here traps tell collapsed checkpoints" if traps.value >= _SPLIT else "Here traps tell nothing"
    better = [row.label for row in rows[1:] if row.area is not None and row.area.value >= max(traps.value, _SPLIT)]
    return f"{said} (AUC {traps.value:.2f})." + (f" As well or better, alone: {'; '.join(better)}." if better else "")
