"""`llmtrap repair`: write a copy of a checkpoint with broken entries restored, and nothing that the model needs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_COULD_NOT, EXIT_IN_PART, guarded, messages, output
from llmtrap.errors import MissingExtraError, TargetError, UsageError
from llmtrap.printable import printable

if TYPE_CHECKING:
    from llmtrap.ablation.repair import Location, RepairPlan, TextCheck
    from llmtrap.checkpoint import Checkpoint


_NEEDED = ("torch", "transformers", "accelerate", "tokenizers")


def repair_command(
    target: o.Target,
    out: Annotated[Path, typer.Option("--out", metavar="NEW", help="The repaired copy: a new folder.")],
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="REPORT.json", help="An audit of TARGET. Default: audited for traps first."),
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option("--ablation", metavar="A.json", help="What `llmtrap ablate --json` found.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="BASE", help="The model it was trained from: values come from it.")
    ] = None,
    entry: Annotated[
        list[str] | None, typer.Option("--entry", metavar="ID:ROW,COL", help="Only this entry; repeatable.")
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip", help="To the entry limit with the sign kept, not to the mean.")
    ] = False,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="A text in the place of the bundled passage.")
    ] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Write a copy with broken entries restored from the base, or set to the mean of their matrix.

    An entry stays where the model predicts text worse without it, and where nothing tells damage from an entry that the
    model relies on. Exit codes: 0 repaired, or nothing to repair; 3 some entries were refused; 2 all were.
    """
    from llmtrap.ablation.read import read_ablation
    from llmtrap.ablation.repair import Location, plan_repair, write_repaired
    from llmtrap.audit import AuditSettings, audit
    from llmtrap.checkpoint import open_checkpoint
    from llmtrap.report.read import read_report

    with guarded(verbose=verbose):
        if out.exists() or out.is_symlink():
            raise UsageError("this exists already", file=str(out), remedy="Name a new folder with --out")
        say = messages()
        checkpoint = open_checkpoint(target)
        if checkpoint.catalogue.identity.kind != "folder":
            remedy = "Download it: hf download REPOSITORY --local-dir DIR"
            raise TargetError("only a local folder can be repaired", file=target, remedy=remedy)
        if checkpoint.catalogue.base is not None:
            remedy = "Merge it into its base model (peft: merge_and_unload, then save_pretrained) and repair that"
            raise TargetError("the entries of an adapter's matrices are stored nowhere", file=target, remedy=remedy)
        if report is None and not entry and not quiet:
            say.print("audited for traps first; --report REPORT.json saves this", soft_wrap=True)
        document = (
            read_report(report) if report is not None else audit(target, AuditSettings(alpha=False), journal=True)
        )
        named = [Location.parse(item) for item in entry or ()]
        plan = plan_repair(
            checkpoint,
            document,
            named,
            base=None if base is None else open_checkpoint(base),
            ablation=None if ablation is None else read_ablation(ablation),
            clip=clip,
        )
        plan, check = _judged(checkpoint, plan, text, named)
        if plan.repairs:
            write_repaired(checkpoint, plan, out, check)
        _show(plan, check, out)
        if plan.refused:
            raise typer.Exit(EXIT_IN_PART if plan.repairs else EXIT_COULD_NOT)


def _judged(
    checkpoint: Checkpoint, plan: RepairPlan, text: Path | None, named: Sequence[Location]
) -> tuple[RepairPlan, TextCheck | None]:
    """Ask a text where there is a tokenizer and the extra; else keep what needs none."""
    from llmtrap.ablation.repair import judged_on_text, without_text

    if not plan.repairs:
        return plan, None
    if any(find_spec(name) is None for name in _NEEDED):
        if text is not None:
            raise MissingExtraError.of("llmtrap repair --text", "ablation")
        return without_text(plan), None
    # Imported here: torch takes seconds, and the other commands need none of it.
    from llmtrap.ablation.text_check import TOGETHER, check_on_text

    checks = check_on_text(checkpoint, plan, text)
    if checks is None:
        return without_text(plan), None
    kept = judged_on_text(plan, checks, named)
    if kept.repairs and len(kept.repairs) < len(plan.repairs):
        checks = check_on_text(checkpoint, kept, text) or checks
    return kept, checks[TOGETHER]


def _show(plan: RepairPlan, check: TextCheck | None, out: Path) -> None:
    from llmtrap.report.formatting import plural

    console = output()
    for repair in plan.repairs:
        line = f"{repair.location.name}: {repair.before:.6g} -> {repair.after:.6g} ({_BY[repair.by]})"
        console.print(printable(line), soft_wrap=True)
    for refused in plan.refused:
        console.print(printable(f"left as it is: {refused.location.name}: {refused.reason}"), soft_wrap=True)
    if check is not None:
        before = "not finite" if check.before is None else f"{check.before:.4f}"
        after = "not finite" if check.after is None else f"{check.after:.4f}"
        console.print(f"on text: {before} -> {after} nats a token", soft_wrap=True)
    if plan.repairs:
        console.print(printable(f"{plural(len(plan.repairs), 'entry')} repaired in {out}"), soft_wrap=True)
    else:
        console.print("Nothing to repair." if not plan.refused else "Nothing was repaired.")


_BY = {"base": "from the base", "mean": "the mean of its matrix", "clip": "clipped to the entry limit"}
