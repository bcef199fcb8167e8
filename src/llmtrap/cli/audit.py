"""`llmtrap audit`: measure every weight matrix of a checkpoint and write the reports."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import typer

from llmtrap.audit import AuditRun, AuditSettings, Finished, Journal, Part, RunOptions, default_folder, journal_for
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.families import read_family
from llmtrap.checkpoint.selection import PART, check_parts
from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded, messages, output
from llmtrap.cli.demo import demo_target
from llmtrap.cli.introduction import introduction, warnings
from llmtrap.cli.progress import AuditProgress
from llmtrap.cli.report_folder import default_report_folder
from llmtrap.errors import UsageError
from llmtrap.printable import printable
from llmtrap.report.coverage import is_incomplete
from llmtrap.report.document import Report
from llmtrap.report.html import write_html
from llmtrap.report.json import to_json, write_json
from llmtrap.report.judging import judged
from llmtrap.report.markdown import write_markdown
from llmtrap.report.rarity.reference import chosen_reference
from llmtrap.report.text import show
from llmtrap.report.verdict import is_rotated

STANDARD_OUTPUT = Path("-")


def audit_command(
    target: o.OptionalTarget = None,
    demo: o.Demo = False,
    json: o.JsonFile = None,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    reference: o.ReferenceFile = None,
    traps: o.Traps = o.TrapModeName.AUTO,
    trap_rule: o.TrapRule = o.TrapRuleName.TRACY_WIDOM,
    no_alpha: o.NoAlpha = False,
    include: o.Include = None,
    exclude: o.Exclude = None,
    split_fused: o.SplitFused = False,
    shuffles: o.Shuffles = 5,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    backend: o.Backend = o.BackendName.AUTO,
    workers: o.Workers = None,
    stall_timeout: o.StallTimeout = None,
    engine: o.Engine = o.EngineName.LOCAL,
    part: o.PartOf = None,
    journal: o.JournalFolder = None,
    fresh: o.Fresh = False,
    revision: o.Revision = None,
    subfolder: o.Subfolder = None,
    family: o.FamilyFile = None,
    download: o.Download = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure every weight matrix of a checkpoint and write the reports.

    Without --json, --html or --markdown all three are written to llmtrap-reports/NAME/.
    """
    with guarded(verbose=verbose, on_interrupt=_carry_on()) as outcome:
        share, of_parts = _shares_and_parts(part)
        published = chosen_reference(reference)
        settings = AuditSettings(
            traps=traps.value,
            trap_rule=trap_rule.value,
            alpha=not no_alpha,
            include=(*(include or ()), *of_parts),
            exclude=tuple(exclude or ()),
            split_fused=split_fused,
            shuffles=shuffles,
            seed=seed,
            backend=backend.value,
            device=device,
        )
        options = RunOptions(engine=engine.value, part=share, isolated=True, stall_timeout=stall_timeout)
        if workers is not None:
            options = replace(options, workers=workers)
        place = _where(target, demo=demo, quiet=quiet)
        checkpoint = open_checkpoint(
            place, split_fused=split_fused, revision=revision, download=download, subfolder=subfolder,
            family=read_family(family) if family is not None else None,
        )  # fmt: skip
        check_parts(checkpoint.matrices, of_parts)
        for warning in warnings(checkpoint, settings):
            messages().print(warning, soft_wrap=True)
        kept = journal_for(checkpoint, journal or default_folder())
        if fresh:
            kept.forget()
        run = AuditRun(checkpoint, settings, options, kept)
        progress = AuditProgress(messages(), options.workers, quiet=quiet)
        if not quiet:
            messages().print(introduction(checkpoint, run.plan), soft_wrap=True)
            for note in checkpoint.notes:
                messages().print(f"--split-fused: {note}", soft_wrap=True, markup=False, highlight=False)
        finished = _follow(run, progress)
        if verbose:
            progress.where_the_time_went()
        if finished.report is None:
            outcome.code = EXIT_IN_PART if progress.failed else EXIT_DONE
            _part_done(share, kept)
        else:
            outcome.code = EXIT_DONE if is_whole(finished.report) else EXIT_IN_PART
            write_faces(judged(finished.report, published), json, html, markdown, quiet=quiet)


def _shares_and_parts(given: list[str] | None) -> tuple[Part, list[str]]:
    """`--part` names a share of the work (I/N), or parts of the model, as patterns."""
    shares = [text for text in given or () if "/" in text]
    if len(shares) > 1:
        raise UsageError("two shares at once", remedy="Give one --part I/N a run, and join the journals with merge")
    return Part.parse(shares[0]) if shares else Part(), [PART + text for text in given or () if "/" not in text]


def _where(target: str | None, *, demo: bool, quiet: bool) -> str:
    if demo:
        return demo_target(target, messages(), quiet=quiet)
    if target is None:
        raise UsageError(
            "no target given",
            remedy="Name a folder, a .safetensors file or a hub repository, or try: llmtrap audit --demo",
        )
    return target


def _follow(run: AuditRun, progress: AuditProgress) -> Finished:
    events = run.events()
    try:
        with progress.live():
            for event in events:
                progress.show(event)
                if isinstance(event, Finished):
                    return event
    finally:
        events.close()
        run.checkpoint.source.close()
    raise RuntimeError("the run ended without a result")


def _part_done(share: Part, kept: Journal) -> None:
    messages().print(
        f"part {share.number} of {share.of} is measured; when all are: llmtrap merge {shlex.quote(str(kept.path))} …",
        soft_wrap=True,
    )


def write_faces(report: Report, json: Path | None, html: Path | None, markdown: Path | None, *, quiet: bool) -> None:
    """Write the faces asked for, all three to the default folder where none was, and show the closing table.

    `-` for the JSON face is standard output, as is the custom; the table is not shown then.
    """
    written: list[Path] = []
    within: Path | None = None
    if json is None and html is None and markdown is None:
        folder = default_report_folder(report.target.name, report.target.kind)
        json, html, markdown = folder / "report.json", folder / "report.html", folder / "report.md"
        # Nobody typed this place, and the current folder may be a stranger's repository.
        within = Path()
    piped = json == STANDARD_OUTPUT
    if json is not None and not piped:
        write_json(report, json, within=within)
        written.append(json)
    if html is not None:
        write_html(report, html, within=within)
        written.append(html)
    if markdown is not None:
        write_markdown(report, markdown, within=within)
        written.append(markdown)
    if piped:
        # Nothing but the document goes there, so that a program can read it.
        typer.echo(to_json(report), nl=False)
    elif not quiet:
        show(report, output())
    if written and not quiet:
        messages().print("written: " + ", ".join(printable(str(path)) for path in written), soft_wrap=True)


def is_whole(report: Report) -> bool:
    """Whether the audit did what was asked: it measured something, and left no weights out but by request."""
    return bool(report.matrices) and not is_incomplete(report.coverage) and not is_rotated(report.target.cautions)


def _carry_on() -> str:
    # --fresh would begin again.
    command = shlex.join(["llmtrap", *(word for word in sys.argv[1:] if word != "--fresh")])
    return f"stopped; what was measured is kept. The same command carries on: {command}"
