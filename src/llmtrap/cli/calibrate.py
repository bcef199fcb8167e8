"""`llmtrap calibrate`: parse, run, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded, output
from llmtrap.printable import printable

TaskName = Literal["mnist", "digits", "modular-addition", "composition"]
PresetName = Literal["quick", "full", "paper"]


def calibrate_command(
    task: Annotated[
        TaskName | None,
        typer.Option(help="What to train on. Default: MNIST where it is at hand, else scikit-learn's digits."),
    ] = None,
    preset: Annotated[
        PresetName,
        typer.Option(help="quick: minutes; full: the best part of an hour; paper: its own protocol, hours."),
    ] = "quick",
    data: Annotated[
        str | None,
        typer.Option(help="MNIST: a folder of IDX or Parquet files, or 'hub' to fetch it."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each arm. Default: the preset's own.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm of the preset; repeatable.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of each run. Default: the preset's own.")] = None,
    dtype: Annotated[Literal["float32", "float64"] | None, typer.Option(help="Float width of the training.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for runs and report. Default: llmtrap-reports/calibrate-TASK-PRESET.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default: one a core.")] = None,
    device: Annotated[Literal["auto", "cpu"], typer.Option(help="auto: a GPU where there is one.")] = "auto",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train no further: report on the runs as far as they have come.")
    ] = False,
    from_trajectory: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Train nothing: judge the measures on a run of your own; repeatable."),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(metavar="CSV", help="Its test scores, columns step and test; one for each --from-trajectory."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")] = False,
) -> None:
    """Train the grokking tasks, follow them through their three phases, and check the thresholds.

    With --from-trajectory nothing is trained: a run of your own, as `llmtrap
    trajectory` wrote it, is held against the test scores of its checkpoints.
    """
    from llmtrap.calibrate import CalibrationSettings, calibrate
    from llmtrap.calibrate.cost import cost_in_words
    from llmtrap.calibrate.settings import plan
    from llmtrap.calibrate.workers import need_training
    from llmtrap.cli.calibrate_board import Board, show
    from llmtrap.cli.own_runs import show_own_runs
    from llmtrap.report.write import make_folder

    console = output(quiet=quiet)
    with guarded(
        verbose=verbose, on_interrupt="Stopped. The same command carries on where each run stands."
    ) as outcome:
        if from_trajectory or scores:
            show_own_runs(from_trajectory or (), scores or (), console)
            return
        settings = CalibrationSettings(
            out=out or Path(),
            task=task,
            preset=preset,
            data=data,
            seeds=seeds,
            arms=tuple(arm or ()),
            steps=steps,
            dtype=dtype,
            workers=workers,
            device=device,
            train=not report_only,
        )
        if settings.train:
            need_training()
        settings = settings.placed(out)
        if out is None:
            make_folder(settings.out, within=Path())
        console.print(
            f"Task {settings.resolved_task()}, preset {preset}, into {printable(str(settings.out))}", soft_wrap=True
        )
        if preset == "paper" and settings.train:
            console.print(f"This costs {cost_in_words(plan(settings))}.", soft_wrap=True)
        with Board(console) as board:
            report = calibrate(settings, board.hear)
        outcome.code = EXIT_IN_PART if report.failed else EXIT_DONE
        show(report, settings.out, console)
