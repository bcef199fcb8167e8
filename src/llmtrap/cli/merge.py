"""`llmtrap merge`: join the parts of an audit that was run in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmtrap.cli import options as o
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded


def merge_command(
    journals: Annotated[
        list[Path], typer.Argument(help="The journals that the parts wrote, or their folders.", show_default=False)
    ],
    json: o.JsonFile = None,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    csv: o.CsvFile = None,
    model_card: o.CardFile = None,
    badge: o.BadgeFile = None,
    name: o.Name = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Join the parts of an audit (audit --part I/N) into its one report."""
    from llmtrap.audit import merge_journals
    from llmtrap.cli.audit import is_whole
    from llmtrap.cli.report_folder import default_report_folder
    from llmtrap.cli.report_outputs import ReportOutputs, check_places

    with guarded(verbose=verbose) as outcome:
        given = {"json": json, "html": html, "markdown": markdown, "csv": csv, "model_card": model_card, "badge": badge}
        check_places({f"--{output.replace('_', '-')}": path for output, path in given.items()})
        report = merge_journals(journals, name)
        outcome.code = EXIT_DONE if is_whole(report) else EXIT_IN_PART
        ReportOutputs.of(default_report_folder(report.target.name, report.target.kind), **given).write(
            report, quiet=quiet
        )
