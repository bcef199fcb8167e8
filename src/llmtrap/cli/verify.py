"""`llmtrap verify`: run WeightWatcher itself on a sample of the same matrices, and compare."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_IN_PART, guarded, messages
from llmtrap.errors import TargetError

if TYPE_CHECKING:
    from llmtrap.verify import Comparison


def verify_command(
    target: o.Target,
    matrices: Annotated[int, typer.Option(min=1, metavar="N", help="How many matrices, spread evenly.")] = 8,
    part: o.ModelPart = None,
    family: o.FamilyFile = None,
    seed: o.Seed = 0,
    revision: o.Revision = None,
    subfolder: o.Subfolder = None,
    verbose: o.Verbose = False,
) -> None:
    """Run WeightWatcher itself on a sample of the same matrices, and compare α, norms and trap counts.

    WeightWatcher is slow: about 3 s for a matrix of 400 × 400, 30 s for 2000 × 1000, and at that rate 10 min for
    5760 × 2880.
    """
    from llmtrap.checkpoint import open_checkpoint
    from llmtrap.checkpoint.families import read_family
    from llmtrap.checkpoint.selection import PART, check_parts, selects
    from llmtrap.cli.verify_table import show
    from llmtrap.report.formatting import duration, plural, printable
    from llmtrap.verify import Comparison, need_weightwatcher, reference_seconds, sample, verify

    with guarded(verbose=verbose):
        need_weightwatcher()
        own = read_family(family) if family is not None else None
        checkpoint = open_checkpoint(target, revision=revision, subfolder=subfolder, family=own).without_tables()
        parts = [PART + name for name in part or ()]
        check_parts(checkpoint.matrices, parts)
        wanted = [m for m in checkpoint.matrices if not parts or any(selects(name, (), m.part) for name in parts)]
        chosen = sample(wanted, matrices)
        if not chosen:
            raise TargetError(
                "no matrix with a smaller side of 50 or more", file=target, remedy="There is nothing to compare"
            )
        say = messages()
        about = duration(reference_seconds(chosen))
        say.print(f"WeightWatcher measures {plural(len(chosen), 'matrix')}: about {about} or more", soft_wrap=True)
        compared: list[Comparison] = []
        begun = time.monotonic()
        for number, found in enumerate(verify(checkpoint, chosen, seed), 1):
            took = duration(time.monotonic() - begun)
            if isinstance(found, Comparison):
                compared.append(found)
                words = f"{' × '.join(map(str, found.shape))}, {took}"
            else:
                words = f"left out: {printable(found.reason, 200)}"
            say.print(f"{number} of {len(chosen)}: {printable(found.name, 60)}, {words}", soft_wrap=True)
            begun = time.monotonic()
        show(compared)
        if not compared:
            raise typer.Exit(EXIT_IN_PART)
