"""`llmtrap reference`: what published models have, and a reference of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, messages, output
from llmtrap.errors import UsageError
from llmtrap.printable import printable

if TYPE_CHECKING:
    from llmtrap.report.rarity.reference import Reference


def reference_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[build REPORT...|FILE]", help="Build one of reports, or show that of a file."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where `build` writes.")] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What reports call it.")] = "own models",
    verbose: o.Verbose = False,
) -> None:
    """Show what published models have, or build a reference of your own from reports.

    A report is held against the reference that ships with llmtrap, or against yours with --reference FILE.
    """
    from llmtrap.report.rarity.reference import read_reference, shipped_reference

    with guarded(verbose=verbose):
        given = words or []
        if given[:1] == ["build"]:
            _build(given[1:], out, name)
            return
        if out is not None:
            raise UsageError("--out is of build", remedy="Write: llmtrap reference build REPORT.json --out FILE")
        if len(given) > 1:
            raise UsageError("one reference at a time", remedy="Name one file, or: build REPORT.json ...")
        _show(read_reference(Path(given[0])) if given else shipped_reference())


def _build(reports: list[str], out: Path | None, name: str) -> None:
    from llmtrap.audit.report import TOOL
    from llmtrap.report.rarity.reference import build, describe
    from llmtrap.report.read import read_report
    from llmtrap.report.write import write_whole

    if out is None:
        raise UsageError("nowhere to write the reference", remedy="Name a file with --out FILE")
    made = build([describe(read_report(Path(report))) for report in reports], name, TOOL)
    write_whole(out, (made.model_dump_json(by_alias=True, indent=1) + "\n").encode())
    messages().print(f"written: {printable(str(out))}, of {len(made.models)} models", soft_wrap=True, markup=False)


def _show(reference: Reference) -> None:
    from rich.table import Table
    from rich.text import Text

    console = output()
    lineages = len({model.lineage for model in reference.models})
    console.print(Text(f"{printable(reference.name, 100)}: {len(reference.models)} models, {lineages} lineages"))
    rows = [
        (model.name, model.family, f"{model.parameters / 1e6:,.1f} M", f"{model.with_traps} of {model.matrices}",
         f"{model.over} of {model.alphas}", model.licence or "–", model.source or "–")
        for model in reference.models
    ]  # fmt: skip
    heads = ("model", "family", "size", "with traps", "α below 2", "licence", "source")
    if not console.is_terminal:
        for row in (heads, *rows):
            console.file.write("\t".join(printable(cell, 200) for cell in row) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell, 80)) for cell in row))
    console.print(table)
