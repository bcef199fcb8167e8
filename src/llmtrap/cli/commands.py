"""The commands by their names."""

from __future__ import annotations

from typing import Annotated

import typer

from llmtrap.cli.ablate import ablate_command
from llmtrap.cli.audit import audit_command
from llmtrap.cli.calibrate import calibrate_command
from llmtrap.cli.doctor import doctor_command
from llmtrap.cli.gate import gate_command
from llmtrap.cli.inspect import inspect_command
from llmtrap.cli.merge import merge_command
from llmtrap.cli.repair import repair_command
from llmtrap.cli.report import report_command
from llmtrap.cli.schema import schema_command
from llmtrap.cli.verify import verify_command
from llmtrap.version import __version__

app = typer.Typer(
    name="llmtrap",
    help="Audit LLM checkpoints for signs of overfitting that need no data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as plain text: brackets in it are meant
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmtrap {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Audit LLM checkpoints for signs of overfitting that need no data."""


app.command("audit")(audit_command)
app.command("inspect")(inspect_command)
app.command("gate")(gate_command)
app.command("calibrate")(calibrate_command)
app.command("report")(report_command)
app.command("merge")(merge_command)
app.command("ablate")(ablate_command)
app.command("repair")(repair_command)
app.command("verify")(verify_command)
app.command("schema")(schema_command)
app.command("doctor")(doctor_command)
