"""`llmtrap schema`: print the JSON Schema of the report."""

from __future__ import annotations

import typer

from llmtrap.report.schema import schema_text


def schema_command() -> None:
    """Print the JSON Schema of the reports that `llmtrap audit --json` writes."""
    typer.echo(schema_text(), nl=False)
