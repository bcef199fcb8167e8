"""What `llmtrap verify` shows: both tools' numbers side by side."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from llmtrap.cli.console import output
from llmtrap.report.formatting import fixed, printable
from llmtrap.verify import Comparison


def show(compared: list[Comparison]) -> None:
    """A row a matrix, why numbers differ, and on how many they agree."""
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
            fixed(c.alpha, 3),
            fixed(c.reference.alpha, 3),
            str(c.tail),
            str(c.reference.tail),
            "equal" if c.norms_agree else "differ",
            f"{c.traps}{spread}",
            "–" if c.reference.traps is None else str(c.reference.traps),
        )
    return table
