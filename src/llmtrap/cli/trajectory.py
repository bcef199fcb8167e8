"""`llmtrap trajectory`: the checkpoints of a run in order, each measured only where it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded
from llmtrap.printable import printable

if TYPE_CHECKING:
    from llmtrap.cli.points import PointTable
    from llmtrap.trajectory.find import NamedCheckpoint
    from llmtrap.trajectory.follow import Follower


Checkpoints = Annotated[
    list[str],
    typer.Argument(metavar="CKPT…", help="Checkpoints, the folder of a run, or a hub repository.", show_default=False),
]
Revisions = Annotated[
    str | None,
    typer.Option("--revisions", metavar="GLOB", help="Branches and tags of the repository, as 'step*'.",
                 show_default=False),
]  # fmt: skip
Points = Annotated[
    int | None, typer.Option("--points", metavar="N", help="At most so many, evenly spread.", show_default=False)
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the trajectory as JSON; - for standard output.",
                 show_default=False),
]  # fmt: skip
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write it as one HTML page.", show_default=False)
]


def trajectory_command(
    checkpoints: Checkpoints,
    revisions: Revisions = None,
    points: Points = None,
    json: JsonFile = None,
    html: HtmlFile = None,
    full_paths: o.FullPaths = False,
    traps: o.Traps = o.TrapModeName.AUTO,
    trap_rule: o.TrapRule = o.TrapRuleName.TRACY_WIDOM,
    no_alpha: o.NoAlpha = False,
    include: o.Include = None,
    exclude: o.Exclude = None,
    shuffles: o.Shuffles = 5,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    backend: o.Backend = o.BackendName.AUTO,
    workers: o.Workers = None,
    journal: o.JournalFolder = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Audit the checkpoints of a run in order, and show traps and α by step.

    Only what changed since the checkpoint before is measured. Without --json or
    --html both are written to llmtrap-reports/NAME/.
    """
    from llmtrap.audit import default_folder
    from llmtrap.cli.points import Places, appearances, point_table, run_of, settings_of
    from llmtrap.report.coverage import is_incomplete
    from llmtrap.report.formatting import plural
    from llmtrap.trajectory.find import find_checkpoints, shown_names
    from llmtrap.trajectory.follow import Follower, FollowOptions

    with guarded(verbose=verbose, on_interrupt="stopped; what was measured is kept, the same command carries on") as it:
        settings = settings_of(
            traps=traps, trap_rule=trap_rule, no_alpha=no_alpha, include=include, exclude=exclude, shuffles=shuffles,
            seed=seed, device=device, backend=backend,
        )  # fmt: skip
        run = run_of(workers)
        found = find_checkpoints(checkpoints, revisions, points, full_paths=full_paths)
        name = _name(checkpoints, found)
        places = Places(name, "hub" if revisions is not None else "folder", json, html)
        table = point_table(run.workers, quiet=quiet, piped=places.piped)
        shown = name if full_paths or revisions is not None else shown_names([name])[0]
        follower = Follower(shown, settings, FollowOptions(run, journal or default_folder()))
        try:
            with table.shown():
                for checkpoint in found:
                    _add(checkpoint, follower, table)
        finally:
            follower.close()
        trajectory = follower.trajectory
        whole = all(not is_incomplete(point.coverage) and point.summary.matrices for point in trajectory.points)
        it.code = EXIT_DONE if whole else EXIT_IN_PART
        written = places.write(trajectory)
        if places.piped:
            typer.echo(places.text(trajectory), nl=False)
        for line in appearances(trajectory.traps, trajectory.points):
            table.say(line)
        measured = sum(point.measured for point in trajectory.points)
        table.say(f"{plural(len(trajectory.points), 'checkpoint')}, {plural(measured, 'matrix')} measured")
        if written:
            table.say("written: " + ", ".join(printable(str(path)) for path in written))


def _add(named: NamedCheckpoint, follower: Follower, table: PointTable) -> None:
    from llmtrap.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(named.target, revision=named.revision)
    with table.live(named.name) as shown:
        for event in follower.events(checkpoint, named.name):
            shown.show(event)
    report = follower.reports[0]
    if report is not None:
        table.add(follower.points[-1], report)


def _name(given: list[str], found: list[NamedCheckpoint]) -> str:
    """What to call the run: the repository, its folder, or the folder that its checkpoints lie in."""
    if len(given) == 1:
        return given[0]
    parents = {Path(it.target).parent for it in found}
    return str(parents.pop()) if len(parents) == 1 else found[0].target
