"""`llmtrap audit`: measure every weight matrix of a checkpoint and write the reports."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded, messages
from llmtrap.errors import UsageError

if TYPE_CHECKING:
    from llmtrap.audit import AuditRun, Finished, Journal, Part
    from llmtrap.audit.progress import AuditProgress
    from llmtrap.report.document import Report


def audit_command(
    target: o.OptionalTarget = None,
    demo: o.Demo = False,
    json: o.JsonFile = None,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    reference: o.ReferenceFile = None,
    csv: o.CsvFile = None,
    model_card: o.CardFile = None,
    badge: o.BadgeFile = None,
    name: o.Name = None,
    full_paths: o.FullPaths = False,
    no_digest: o.NoDigest = False,
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

    Where no output is named JSON, the page and Markdown are written to llmtrap-reports/NAME/.
    """
    from llmtrap.audit import AuditRun, AuditSettings, RunOptions, default_folder, journal_for
    from llmtrap.audit.progress import AuditProgress
    from llmtrap.checkpoint import open_checkpoint
    from llmtrap.checkpoint.families import read_family
    from llmtrap.checkpoint.selection import check_parts
    from llmtrap.cli.demo import planted_found
    from llmtrap.cli.introduction import introduction, warnings
    from llmtrap.cli.report_folder import default_report_folder
    from llmtrap.cli.report_outputs import ReportOutputs
    from llmtrap.report.judging import judged
    from llmtrap.report.rarity.reference import chosen_reference
    from llmtrap.report.verdict import judge

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
        options = RunOptions(
            engine=engine.value, part=share, isolated=True, stall_timeout=stall_timeout,
            digest=not no_digest, full_paths=full_paths, name=name,
        )  # fmt: skip
        if workers is not None:
            options = replace(options, workers=workers)
        place = _where(target, demo=demo, quiet=quiet)
        given = {"json": json, "html": html, "markdown": markdown, "csv": csv, "model_card": model_card, "badge": badge}
        checkpoint = open_checkpoint(
            place, split_fused=split_fused, revision=revision, download=download, subfolder=subfolder,
            family=read_family(family) if family is not None else None,
        )  # fmt: skip
        check_parts(checkpoint.matrices, of_parts)
        identity = checkpoint.catalogue.identity
        outputs = ReportOutputs.of(default_report_folder(identity.name, identity.kind), **given)
        for warning in warnings(checkpoint, settings):
            messages().print(warning, soft_wrap=True)
        kept = journal_for(checkpoint, journal or default_folder())
        if fresh:
            kept.forget()
        run = AuditRun(checkpoint, settings, options, kept)
        progress = AuditProgress(messages(), options.workers, quiet=quiet)
        if not quiet:
            messages().print(introduction(checkpoint, run.plan, full_paths=full_paths), soft_wrap=True)
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
            report = judged(finished.report, published)
            outputs.write(report, quiet=quiet)
            if quiet and outcome.code:
                found = judge(report)
                messages().print(f"llmtrap: {found.word}: {found.lead} {found.coverage}", soft_wrap=True)
            if demo and not quiet and (told := planted_found(Path(place), finished.report)):
                messages().print(told, highlight=False)


def _shares_and_parts(given: list[str] | None) -> tuple[Part, list[str]]:
    """`--part` names a share of the work (I/N), or parts of the model, as patterns."""
    from llmtrap.audit import Part
    from llmtrap.checkpoint.selection import PART

    shares = [text for text in given or () if "/" in text]
    if len(shares) > 1:
        raise UsageError("two shares at once", remedy="Give one --part I/N a run, and join the journals with merge")
    return Part.parse(shares[0]) if shares else Part(), [PART + text for text in given or () if "/" not in text]


def _where(target: str | None, *, demo: bool, quiet: bool) -> str:
    from llmtrap.cli.demo import demo_target

    if demo:
        return demo_target(target, messages(), quiet=quiet)
    if target is None:
        raise UsageError(
            "no target given",
            remedy="Name a folder, a .safetensors file or a hub repository, or try: llmtrap audit --demo",
        )
    return target


def _follow(run: AuditRun, progress: AuditProgress) -> Finished:
    from llmtrap.audit import Finished

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


def is_whole(report: Report) -> bool:
    """Whether the audit did what was asked: it measured something, all of it, and left no weights out but by request.

    With NaN or infinite values in any tensor the network answers NaN, whatever else was measured.
    """
    from llmtrap.report.coverage import is_incomplete
    from llmtrap.report.verdict import is_rotated

    broken = report.summary.level == "broken"
    return (
        bool(report.matrices)
        and not broken
        and not is_incomplete(report.coverage)
        and not is_rotated(report.target.cautions)
    )


def _carry_on() -> str:
    # --fresh would begin again.
    command = shlex.join(["llmtrap", *(word for word in sys.argv[1:] if word != "--fresh")])
    return f"stopped; what was measured is kept. The same command carries on: {command}"
