"""`llmtrap report`: show a report again, in any output, alone or against its base; index a folder of reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import guarded, output
from llmtrap.errors import UsageError

if TYPE_CHECKING:
    from llmtrap.report.against import Comparison
    from llmtrap.report.document import Report


def report_command(
    report: Annotated[
        Path | None, typer.Argument(metavar="REPORT.json", help="A report that `llmtrap audit --json` wrote.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the page.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown.")] = None,
    csv: o.CsvFile = None,
    model_card: o.CardFile = None,
    badge: o.BadgeFile = None,
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
    from llmtrap.ablation.read import read_ablation, with_activity
    from llmtrap.cli.report_outputs import STANDARD_OUTPUT, check_places
    from llmtrap.report.against import compare
    from llmtrap.report.html import write_index
    from llmtrap.report.judging import judged
    from llmtrap.report.rarity.reference import chosen_reference
    from llmtrap.report.read import read_report
    from llmtrap.report.text import show
    from llmtrap.report.write import write_whole

    with guarded(verbose=verbose):
        if report is None and index is None:
            raise UsageError("nothing to show", remedy="Name a report, or a folder with --index.")
        outputs = {"html": html, "markdown": markdown, "csv": csv, "model-card": model_card, "badge": badge}
        named = {name: path for name, path in outputs.items() if path is not None}
        others = {"against": against, "ablation": ablation, "reference": reference}
        needing = [*named, *(name for name, value in others.items() if value is not None)]
        if report is None and needing:
            option = needing[0]
            raise UsageError(f"--{option} needs a report", remedy="Name the report first.")
        check_places({f"--{name}": path for name, path in named.items()})
        if report is not None:
            document = judged(read_report(report), chosen_reference(reference))
            if ablation is not None:
                document = with_activity(document, read_ablation(ablation))
            comparison = compare(document, read_report(against)) if against is not None else None
            for name, path in named.items():
                text = _face(name, document, comparison)
                if path == STANDARD_OUTPUT:
                    typer.echo(text, nl=False)
                else:
                    write_whole(path, text.encode("utf-8", "backslashreplace"))
            if not named:
                show(document, output(), comparison)
        if index is not None:
            write_index(index)


def _face(name: str, document: Report, comparison: Comparison | None) -> str:
    """An output's text; the page and Markdown show what is new against a base too."""
    from llmtrap.report.html import to_html
    from llmtrap.report.markdown import to_markdown
    from llmtrap.report.outputs import REPORT_OUTPUTS

    if name == "html":
        return to_html(document, comparison)
    return to_markdown(document, comparison) if name == "markdown" else REPORT_OUTPUTS[name].write(document)
