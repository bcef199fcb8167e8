"""`llmtrap verify`: run WeightWatcher itself on a sample of the same matrices, and compare."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from llmtrap.checkpoint import open_checkpoint
from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, messages, output
from llmtrap.errors import TargetError
from llmtrap.report.wording import plural, printable
from llmtrap.verify import Comparison, sample, verify


def verify_command(
    target: o.Target,
    matrices: Annotated[int, typer.Option(min=1, metavar="N", help="How many matrices, spread evenly.")] = 8,
    seed: o.Seed = 0,
    revision: o.Revision = None,
    verbose: o.Verbose = False,
) -> None:
    """Run WeightWatcher itself on a sample of the same matrices, and compare α, norms and trap counts."""
    with guarded(verbose=verbose):
        checkpoint = open_checkpoint(target, revision=revision)
        chosen = sample(checkpoint.matrices, matrices)
        if not chosen:
            raise TargetError(
                "no matrix with a smaller side of 50 or more", file=target, remedy="There is nothing to compare"
            )
        messages().print(f"WeightWatcher measures {plural(len(chosen), 'matrix')}: this may take minutes")
        compared = verify(checkpoint, matrices, seed)
        console = output()
        console.print(_table(compared))
        for comparison in compared:
            if comparison.reasons:
                console.print(f"{printable(comparison.name, 60)}: {'; '.join(comparison.reasons)}")
        agree = sum(c.alpha_agrees for c in compared)
        norms = sum(c.norms_agree for c in compared)
        console.print(
            f"α agrees within 10⁻³, with the same tail, on {agree} of {len(compared)}; norms within 10⁻⁵ on {norms}."
        )


def _table(compared: list[Comparison]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("matrix", overflow="fold")
    for header in ("α", "WW's", "tail", "WW's", "norms", "traps", "WW's"):
        table.add_column(header, justify="right")
    for c in compared:
        spread = f" ({c.traps_low}–{c.traps_high})" if c.traps_low != c.traps_high else ""
        table.add_row(
            Text(printable(c.name, 60)),
            "–" if c.alpha is None else f"{c.alpha:.3f}",
            f"{c.reference.alpha:.3f}",
            str(c.tail),
            str(c.reference.tail),
            "equal" if c.norms_agree else "differ",
            f"{c.traps}{spread}",
            "–" if c.reference.traps is None else str(c.reference.traps),
        )
    return table
