"""What one matrix costs and on what: a table by shape and stage, in seconds of one core, for docs/scaling.md.

    python -m benchmarks.stage_costs DIR [--each 3]

Of every shape in the checkpoint some matrices that are certified and some that are shuffled are measured by a worker
as in an audit, without a journal.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.real_size import ONE_THREAD, Shape
from llmtrap.audit import AuditSettings, make_plan
from llmtrap.audit.executors.worker import Worker, WorkerSpec
from llmtrap.audit.plan import Task
from llmtrap.audit.timing import EIGENVALUES, GRAM, OTHER, READ
from llmtrap.checkpoint import open_checkpoint

STAGES = (READ, GRAM, EIGENVALUES, OTHER)
Kind = tuple[Shape, str, bool]


def kinds(tasks: Sequence[Task], shuffled: set[str]) -> dict[Kind, list[Task]]:
    """Tasks by shape, storage format and whether the matrix is shuffled."""
    found: dict[Kind, list[Task]] = defaultdict(list)
    for task in tasks:
        shape = (max(task.matrix.shape), min(task.matrix.shape))
        found[shape, task.matrix.encoding, task.matrix.id in shuffled].append(task)
    return found


def measured(folder: Path, each: int) -> Iterator[tuple[Kind, int, dict[str, float]]]:
    """Each kind, how many matrices of it were measured, and the median seconds of every stage."""
    checkpoint = open_checkpoint(str(folder))
    quick = Worker(
        WorkerSpec(checkpoint.source, AuditSettings(alpha=False, traps="certify").analysis(), "numpy", "cpu")
    )
    full = Worker(WorkerSpec(checkpoint.source, AuditSettings().analysis(), "numpy", "cpu"))
    tasks = make_plan(checkpoint, AuditSettings()).tasks
    certified = {task.matrix.id for task in tasks if _certified(quick, task)}
    for kind, members in sorted(kinds(tasks, {t.matrix.id for t in tasks} - certified).items()):
        spent = [full.measure(task).stages for task in members[:each]]
        yield kind, len(spent), {name: statistics.median(s.get(name, 0.0) for s in spent) for name in STAGES}
    checkpoint.source.close()


def _certified(worker: Worker, task: Task) -> bool:
    matrix = worker.measure(task).matrix
    return matrix is not None and matrix.traps is not None and matrix.traps.method == "certified"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_costs", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--each", type=int, default=3, help="matrices of each kind")
    options = parser.parse_args(arguments)
    os.environ.update(ONE_THREAD)
    table = Table("N × M", "stored as", "", "measured", *STAGES, "sum s")
    for ((n, m), encoding, shuffled), count, stages in measured(options.checkpoint, options.each):
        seconds = [stages[name] for name in STAGES]
        numbers = [f"{value:.3f}" for value in (*seconds, sum(seconds))]
        table.add_row(f"{n} × {m}", encoding, "shuffled" if shuffled else "certified", f"{count}", *numbers)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
