"""`llmtrap merge`: join the parts of an audit that was run in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmtrap.audit import merge_journals
from llmtrap.cli import options as o
from llmtrap.cli.audit import is_whole, write_faces
from llmtrap.cli.console import EXIT_DONE, EXIT_IN_PART, guarded


def merge_command(
    journals: Annotated[
        list[Path], typer.Argument(help="The journals that the parts wrote, or their folders.", show_default=False)
    ],
    json: o.JsonFile = None,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Join the parts of an audit (audit --part I/N) into its one report."""
    with guarded(verbose=verbose) as outcome:
        report = merge_journals(journals)
        outcome.code = EXIT_DONE if is_whole(report) else EXIT_IN_PART
        write_faces(report, json, html, markdown, quiet=quiet)
