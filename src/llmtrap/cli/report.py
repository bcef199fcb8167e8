"""`llmtrap report`: show a report again, in any face, alone or against its base; index a folder of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmtrap.ablation.read import read_ablation, with_activity
from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, output
from llmtrap.errors import UsageError
from llmtrap.report.against import compare
from llmtrap.report.html import write_html, write_index
from llmtrap.report.judging import judged
from llmtrap.report.markdown import write_markdown
from llmtrap.report.rarity.reference import chosen_reference
from llmtrap.report.read import read_report
from llmtrap.report.text import show


def report_command(
    report: Annotated[
        Path | None, typer.Argument(metavar="REPORT.json", help="A report that `llmtrap audit --json` wrote.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="F", help="Write the page.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="F", help="Write Markdown.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="BASE.json", help="Show what is new against this report.")
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option("--ablation", metavar="A.json", help="Say what an ablation calls each entry.")
    ] = None,
    reference: o.ReferenceFile = None,
    index: Annotated[
        Path | None, typer.Option("--index", metavar="DIR", help="Write the index page of a folder of reports.")
    ] = None,
    verbose: o.Verbose = False,
) -> None:
    """Render a report again: as a page, as Markdown or here; alone or against its base."""
    with guarded(verbose=verbose):
        if report is None and index is None:
            raise UsageError("nothing to show", remedy="Name a report, or a folder with --index.")
        if report is None and (html or markdown or against or ablation or reference):
            raise UsageError(
                "--html, --markdown, --against, --ablation and --reference need a report",
                remedy="Name the report first.",
            )
        if report is not None:
            document = judged(read_report(report), chosen_reference(reference))
            if ablation is not None:
                document = with_activity(document, read_ablation(ablation))
            comparison = compare(document, read_report(against)) if against is not None else None
            if html is not None:
                write_html(document, html, comparison)
            if markdown is not None:
                write_markdown(document, markdown, comparison)
            if html is None and markdown is None:
                show(document, output(), comparison)
        if index is not None:
            write_index(index)
