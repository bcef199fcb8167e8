"""`llmtrap watch`: audit the checkpoints of a run as they appear in a folder."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded
from llmtrap.cli.trajectory import HtmlFile, JsonFile
from llmtrap.errors import UsageError
from llmtrap.printable import printable

if TYPE_CHECKING:
    from llmtrap.cli.points import Places, PointTable
    from llmtrap.gate.policy_file import LoadedPolicy
    from llmtrap.trajectory.follow import Follower
    from llmtrap.trajectory.watching import Audited, WatchOptions


EXIT_VIOLATED = 1

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Where the run saves checkpoints.", show_default=False)]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="What a checkpoint is held to; as for gate.", show_default=False),
]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Do not end where the policy is violated.")]
Every = Annotated[float, typer.Option("--every", metavar="SECONDS", help="Between two looks at the folder.")]
Settle = Annotated[
    float, typer.Option("--settle", metavar="SECONDS", help="A checkpoint is complete when it is left so long.")
]
Idle = Annotated[
    float | None,
    typer.Option("--idle", metavar="SECONDS", help="End when nothing is new for so long.", show_default=False),
]
Once = Annotated[bool, typer.Option("--once", help="Audit what is there, and end.")]


def watch_command(
    folder: Folder,
    policy: PolicyFile = None,
    keep_going: KeepGoing = False,
    every: Every = 5.0,
    settle: Settle = 10.0,
    idle: Idle = None,
    once: Once = False,
    json: JsonFile = None,
    html: HtmlFile = None,
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
    full_paths: o.FullPaths = False,
    journal: o.JournalFolder = None,
    fresh: o.Fresh = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Audit each checkpoint of a run as it is complete, and hold it to a policy.

    Exit codes: 0 ended by --idle or --once, 1 the policy is violated, 3 nothing
    was audited. The trajectory is written after each checkpoint, and the same
    command carries it on.
    """
    from llmtrap.audit import default_folder
    from llmtrap.cli.points import Places, point_table, run_of, settings_of
    from llmtrap.gate.policy_file import load_policy
    from llmtrap.trajectory.find import shown_names
    from llmtrap.trajectory.follow import Follower, FollowOptions
    from llmtrap.trajectory.read import read_trajectory
    from llmtrap.trajectory.watching import WatchOptions

    with guarded(verbose=verbose, on_interrupt="stopped; the same command carries on") as outcome:
        options = WatchOptions(every, settle, idle, once)
        settings = settings_of(
            traps=traps, trap_rule=trap_rule, no_alpha=no_alpha, include=include, exclude=exclude, shuffles=shuffles,
            seed=seed, device=device, backend=backend,
        )  # fmt: skip
        run = run_of(workers)
        rules = load_policy(policy, target=str(folder))
        places = Places(str(folder), "folder", json, html)
        if places.json is None or places.piped:
            raise UsageError("watch keeps the run in its JSON file", remedy="Name a file with --json")
        there = places.json.exists() if places.within is None else os.path.lexists(places.json)
        past = read_trajectory(places.json, follow=places.within is None) if there and not fresh else None
        shown = str(folder) if full_paths else shown_names([str(folder)])[0]
        follower = Follower(shown, settings, FollowOptions(run, journal or default_folder(), digests=True), past)
        table = point_table(run.workers, quiet=quiet)
        with table.shown():
            if past is not None and past.points:
                table.say(f"carrying on after {printable(past.points[-1].name, 80)}: {places.json}")
            outcome.code = _follow(folder, follower, options, places, table, rules, keep_going=keep_going)


def _follow(
    folder: Path,
    follower: Follower,
    options: WatchOptions,
    places: Places,
    table: PointTable,
    rules: LoadedPolicy,
    *,
    keep_going: bool,
) -> int:
    """Show and write what happens; the exit code."""
    from llmtrap.report.formatting import duration
    from llmtrap.trajectory.watching import Audited, Began, LeftOut, Looked, watch

    violated = False
    said: str | None = None
    with ExitStack() as bars:
        for event in watch(folder, follower, options):
            if isinstance(event, Looked):
                waiting = f"; {event.waiting} not complete yet" if event.waiting else ""
                words = f"waiting for the next checkpoint in {printable(follower.name, 80)}{waiting}"
                if not options.once and words != said:
                    table.wait(words + (f", for {duration(options.idle)}" if options.idle is not None else ""))
                said = words
                continue
            said = None
            if isinstance(event, Began):
                bars.enter_context(table.live(event.path.name))
            elif isinstance(event, LeftOut):
                bars.close()
                table.say(
                    f"{printable(event.path.name, 80)}: {event.reason}{'; looked at again' if event.for_now else ''}"
                )
            elif isinstance(event, Audited):
                bars.close()
                places.write(follower.trajectory)
                violated = _judged(event, follower, table, rules) or violated
                if violated and not keep_going:
                    return EXIT_VIOLATED
            else:
                table.show(event)
    if violated:
        return EXIT_VIOLATED
    return EXIT_DONE if follower.points else EXIT_IN_PART


def _judged(event: Audited, follower: Follower, table: PointTable, rules: LoadedPolicy) -> bool:
    """Print a checkpoint's line, and what it violates."""
    from llmtrap.trajectory.judging import judge_point

    report, before = follower.reports
    assert report is not None  # noqa: S101 - it was audited
    table.add(event.point, report)
    judgement = judge_point(report, before, rules)
    # A trap that grows slowly never stands clear of the checkpoint before, by which the rules judge.
    grown = bool(event.point.new_traps) and rules.policy.settings("LT001").level == "error"
    if judgement.outcome != "violated" and not grown:
        return False
    words = judgement.headline if judgement.outcome == "violated" else "a new trap"
    table.say(f"{printable(event.path.name, 80)} violates the policy: {words}")
    for finding in [it for it in judgement.findings if it.level == "error"][:8]:
        where = f" {printable(finding.id, 80)}" if finding.id is not None else ""
        table.say(f"  {finding.rule}{where}: {printable(finding.message, 300)}")
    return True
