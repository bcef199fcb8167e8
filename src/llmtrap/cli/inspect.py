"""`llmtrap inspect`: what would be audited, and what not and why, from headers alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, messages


def inspect_command(
    target: o.Target,
    include: o.Include = None,
    exclude: o.Exclude = None,
    part: o.ModelPart = None,
    split_fused: o.SplitFused = False,
    revision: o.Revision = None,
    subfolder: o.Subfolder = None,
    family: o.FamilyFile = None,
    every: Annotated[bool, typer.Option("--all", help="List every matrix and every skipped tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, for scripts.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """Show what would be audited, and what not and why. Headers only: no weight is read."""
    from llmtrap.audit import AuditSettings, make_plan
    from llmtrap.checkpoint import open_checkpoint
    from llmtrap.checkpoint.families import read_family
    from llmtrap.checkpoint.selection import PART, check_parts
    from llmtrap.cli.inspect_tables import document, show
    from llmtrap.cli.introduction import warnings

    with guarded(verbose=verbose):
        own = read_family(family) if family is not None else None
        checkpoint = open_checkpoint(
            target, split_fused=split_fused, revision=revision, subfolder=subfolder, family=own
        )
        parts = [PART + name for name in part or ()]
        check_parts(checkpoint.matrices, parts)
        wanted = (*(include or ()), *parts)
        settings = AuditSettings(include=wanted, exclude=tuple(exclude or ()), split_fused=split_fused)
        plan = make_plan(checkpoint, settings, keyed=False)
        for warning in warnings(checkpoint, settings):
            messages().print(warning, soft_wrap=True)
        if as_json:
            typer.echo(json.dumps(document(checkpoint, plan), indent=2))
        else:
            show(checkpoint, plan, every=every)
        checkpoint.source.close()
