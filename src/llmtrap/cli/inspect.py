"""`llmtrap inspect`: what would be audited, and what not and why, from headers alone."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmtrap.audit import AuditSettings, Plan, RunOptions, make_plan
from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, output
from llmtrap.cli.introduction import encodings, where_from
from llmtrap.report.wording import duration, plural, printable, size


def inspect_command(
    target: o.Target,
    include: o.Include = None,
    exclude: o.Exclude = None,
    split_fused: o.SplitFused = False,
    revision: o.Revision = None,
    subfolder: o.Subfolder = None,
    every: Annotated[bool, typer.Option("--all", help="List every matrix and every skipped tensor.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """Show what would be audited, and what not and why. Headers only: no weight is read."""
    with guarded(verbose=verbose):
        checkpoint = open_checkpoint(target, split_fused=split_fused, revision=revision, subfolder=subfolder)
        settings = AuditSettings(include=tuple(include or ()), exclude=tuple(exclude or ()), split_fused=split_fused)
        plan = make_plan(checkpoint, settings)
        _show(checkpoint, plan, output(), every=every)
        checkpoint.source.close()


def _show(checkpoint: Checkpoint, plan: Plan, console: Console, *, every: bool) -> None:
    identity = checkpoint.catalogue.identity
    workers = RunOptions().workers
    facts = Table.grid(padding=(0, 2))
    facts.add_row("target", Text(printable(identity.label)))
    if checkpoint.catalogue.base is not None:
        facts.add_row("adapter of", Text(printable(checkpoint.catalogue.base.label)))
    facts.add_row("family", checkpoint.family)
    facts.add_row("encodings", Text(encodings(task.matrix for task in plan.tasks)))
    facts.add_row("files", plural(len(checkpoint.catalogue.files), "file") + where_from(checkpoint))
    facts.add_row("matrices", f"{len(plan.tasks):,}, {size(plan.bytes)} to read")
    facts.add_row("time", f"about {duration(plan.core_seconds / workers)} or more with {plural(workers, 'worker')}")
    facts.add_row("skipped", plural(len(plan.skipped), "tensor"))
    console.print(facts)
    console.print()
    console.print(_every_matrix(plan) if every else _by_kind(plan))
    if plan.skipped:
        console.print()
        console.print(_every_skip(plan) if every else _by_reason(plan))


def _by_kind(plan: Plan) -> Table:
    kinds = Counter((t.matrix.role, t.matrix.shape, t.matrix.encoding) for t in plan.tasks)
    table = _table("matrices", "rows × columns", "encoding", "count")
    for (role, shape, encoding), count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(Text(printable(role, 40)), f"{shape[0]} × {shape[1]}", encoding, str(count))
    return table


def _every_matrix(plan: Plan) -> Table:
    table = _table("matrix", "tensor", "rows × columns", "encoding")
    for task in plan.tasks:
        m = task.matrix
        table.add_row(Text(printable(m.id)), Text(printable(m.tensor)), f"{m.shape[0]} × {m.shape[1]}", m.encoding)
    return table


def _by_reason(plan: Plan) -> Table:
    table = _table("skipped because", "tensors", "for instance")
    reasons: dict[str, list[str]] = {}
    for skipped in plan.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.tensor)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        table.add_row(Text(printable(reason)), str(len(names)), Text(printable(names[0], 60)))
    return table


def _every_skip(plan: Plan) -> Table:
    table = _table("skipped", "because")
    for skipped in plan.skipped:
        table.add_row(Text(printable(skipped.tensor)), Text(printable(skipped.reason)))
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, overflow="fold", justify="right" if header in ("count", "tensors") else "left")
    return table
