"""`llmtrap gate`: judge a fine-tuned checkpoint, an adapter or a report against a base and a policy."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, messages, output
from llmtrap.cli.streams import write_commands
from llmtrap.errors import UsageError

if TYPE_CHECKING:
    from llmtrap.gate.run import GateResult
    from llmtrap.report.document import Report


TARGET_HELP = "A checkpoint, a LoRA adapter, a hub repository, or a report (.json)."
Targets = Annotated[list[str] | None, typer.Argument(metavar="TARGET", help=TARGET_HELP, show_default=False)]
Reports = Annotated[bool, typer.Option("--reports", help="Judge several reports, each by itself; the worst counts.")]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", metavar="BASE", help="What it was tuned from: a checkpoint or a report.",
                 show_default=False, envvar="LLMTRAP_BASELINE", show_envvar=False),
]  # fmt: skip
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="Default: llmtrap.toml, or [tool.llmtrap] of pyproject.toml, here.",
                 show_default=False, envvar="LLMTRAP_POLICY", show_envvar=False),
]  # fmt: skip
Output = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="FMT=PATH",
                 help="Write a file (- for standard output); repeatable. "
                 "FMT: text, json, markdown, sarif, junit, github, html.",
                 show_default=False),
]  # fmt: skip
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit 0 even where the policy is violated.")]
Init = Annotated[bool, typer.Option("--init", help="Write llmtrap.toml, a policy with every key explained, and stop.")]
TrajectoryFile = Annotated[
    str | None,
    typer.Option("--trajectory", metavar="FILE[@STEP]", help="Judge against a run's past: its last point.",
                 show_default=False),
]  # fmt: skip
BaseRevision = Annotated[
    str | None, typer.Option("--baseline-revision", metavar="R", help="Hub revision of the base.", show_default=False)
]
Accept = Annotated[
    str | None,
    typer.Option("--accept", metavar="REASON", show_default=False,
                 help="Write an [[ignore]] for each violation into the policy file, and judge by it."),
]  # fmt: skip
Expires = Annotated[
    datetime.datetime | None,
    typer.Option("--expires", metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], show_default=False,
                 help="The last day on which what --accept writes holds."),
]  # fmt: skip
UpdateBaseline = Annotated[
    Path | None,
    typer.Option("--update-baseline", metavar="FILE", show_default=False,
                 help="Write the target's report, the baseline of the next gates, where all of it was judged."),
]  # fmt: skip


def gate_command(
    targets: Targets = None,
    baseline: Baseline = None,
    trajectory: TrajectoryFile = None,
    policy: PolicyFile = None,
    output: Output = None,
    exit_zero: ExitZero = False,
    accept: Accept = None,
    expires: Expires = None,
    update_baseline: UpdateBaseline = None,
    reports: Reports = False,
    init: Init = False,
    device: o.Device = "auto",
    backend: o.Backend = o.BackendName.AUTO,
    workers: o.Workers = None,
    journal: o.JournalFolder = None,
    fresh: o.Fresh = False,
    revision: o.Revision = None,
    baseline_revision: BaseRevision = None,
    subfolder: o.Subfolder = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Judge a fine-tuned checkpoint against its base and a policy.

    Exit codes: 0 passed, 1 the policy is violated, 2 could not audit, 3 too little could be judged.
    """
    from llmtrap.audit import RunOptions, default_folder
    from llmtrap.cli.gate_changes import Changes
    from llmtrap.cli.gate_progress import Watcher
    from llmtrap.gate.measure_sides import GateOptions
    from llmtrap.gate.policy_file import load_policy
    from llmtrap.gate.run import gate
    from llmtrap.gate.template import write_template

    with guarded(verbose=verbose) as outcome:
        if init:
            messages().print(f"written: {write_template(Path())}", soft_wrap=True)
            return
        chosen = _targets(targets or [], reports=reports, outputs=bool(output))
        changes = Changes.prepare(chosen, policy, accept, expires, update_baseline)
        wanted = [_wanted(text) for text in output or ()]
        _check_outputs(wanted)
        run = RunOptions() if workers is None else RunOptions(workers=workers)
        judged: list[GateResult] = []
        with Watcher(quiet=quiet) as watcher:
            options = GateOptions(workers=run.workers,
                device=device, backend=backend.value, journal=journal or default_folder(), fresh=fresh,
                revision=revision, base_revision=baseline_revision, subfolder=subfolder,
                whole=update_baseline is not None, observe=watcher.observe,
            )  # fmt: skip
            for target in chosen:
                base = baseline if trajectory is None else _past(trajectory, target, baseline)
                loaded = changes.policy or load_policy(policy, target=target)
                judged.append(changes.accept(gate(target, base, loaded, options)))
                outcome.code = _worst(outcome.code, judged[-1].judgement.exit_code, exit_zero=exit_zero)
        for gated in judged:
            _write(gated, wanted, quiet=quiet)
        changes.finish(judged, quiet=quiet)


def _past(trajectory: str, target: str, baseline: str | None) -> Report:
    from llmtrap.trajectory.judging import past_of

    if baseline is not None:
        raise UsageError("--baseline and --trajectory are two bases", remedy="Give one of them")
    return past_of(trajectory, target)


def _targets(given: list[str], *, reports: bool, outputs: bool) -> list[str]:
    """What to judge: one target, or with --reports as many reports as are named."""
    from llmtrap.gate.targets import is_report

    if not given:
        raise UsageError("no target given", remedy="Name a checkpoint, an adapter or a report, or use --init")
    if not reports and len(given) > 1:
        more = f"{len(given)} targets given, and one is judged at a time"
        raise UsageError(more, remedy="Name one, or give --reports to judge several reports")
    others = [name for name in given if reports and not is_report(name)]
    if others:
        raise UsageError(f"--reports takes reports, and '{others[0]}' is none", remedy="Name files that end in .json")
    if len(given) > 1 and outputs:
        raise UsageError("--output names one file, and several reports are judged", remedy="Judge them one by one")
    return given


def _worst(code: int, new: int, *, exit_zero: bool) -> int:
    """The exit code of several judgements: violated before what could not be judged before passed.

    Only a verdict can be waived with --exit-zero: what could not be judged stays an error.
    """
    new = 0 if exit_zero and new == 1 else new
    return next(worse for worse in (1, 3, new, code) if worse in (code, new))


def _wanted(text: str) -> tuple[str, Path]:
    from llmtrap.gate.outputs import OUTPUTS

    name, equals, path = text.partition("=")
    if not equals or not path or name not in OUTPUTS:
        raise UsageError(f"'{text}' is no output", remedy=f"Give FMT=PATH with one of: {', '.join(OUTPUTS)}")
    return name, Path(path)


def _check_outputs(wanted: list[tuple[str, Path]]) -> None:
    """Try every file before anything is measured; one output alone goes to standard output."""
    from llmtrap.cli.report_outputs import STANDARD_OUTPUT, check_places

    if sum(path == STANDARD_OUTPUT for _, path in wanted) > 1:
        raise UsageError("two outputs both name standard output", remedy="Name a file for one of them")
    for _, path in wanted:
        check_places({"--output": path})


def _write(gated: GateResult, wanted: list[tuple[str, Path]], *, quiet: bool) -> None:
    """The files asked for, the text for whoever reads along, and what GitHub shows by itself."""
    from llmtrap.cli.report_outputs import STANDARD_OUTPUT
    from llmtrap.gate.outputs import OUTPUTS
    from llmtrap.gate.outputs.github import to_annotations, to_summary
    from llmtrap.gate.outputs.text import to_text
    from llmtrap.report.write import write_whole

    piped = False
    for name, path in wanted:
        if path == STANDARD_OUTPUT:
            piped = True
            typer.echo(OUTPUTS[name](gated), nl=False)
        else:
            write_whole(path, OUTPUTS[name](gated).encode("utf-8", "backslashreplace"))
    if not quiet and not piped:
        # Wrapped for eyes alone: in a pipe or a log every finding stays on its line.
        width = max(40, output().width) if output().is_terminal else None
        typer.echo(to_text(gated.judgement, width=width), nl=False)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        write_commands(to_annotations(gated.judgement))
        if place := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(place).open("ab") as file:
                file.write(to_summary(gated.judgement).encode("utf-8", "backslashreplace"))
