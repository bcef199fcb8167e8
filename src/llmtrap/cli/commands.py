"""The commands by their names. One is imported when it is asked for: `--version` and the shell wait for none."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from llmtrap.cli.help import Command, Group
from llmtrap.version import __version__

NAMES = (
    "audit", "inspect", "gate", "trajectory", "watch", "calibrate", "report", "reference", "explain", "merge", "ablate",
    "repair", "verify", "schema", "doctor",
)  # fmt: skip
"""In the order of `--help`. The function of `name` is `name_command` in the module `name`."""

_SETTINGS: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # help as plain text: brackets in it are meant
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


def function_of(name: str) -> Callable[..., None]:
    """What a command calls; its signature declares the options."""
    found: Callable[..., None] = getattr(import_module(f"llmtrap.cli.{name}"), f"{name}_command")
    return found


def words_of(name: str) -> str:
    """What a command's help says, read from its source: the shell's completion waits for no import."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == f"{name}_command":
            return ast.get_docstring(node) or ""
    return ""


def _complete_as_written(command: Any, ctx: Any) -> None:
    """While the shell completes, neither values nor help are turned into anything else.

    Typer converts values by Pydantic, and for zsh and fish it reads help as Rich's markup, which brackets in ours are
    not. Each takes longer to import than all the rest.
    """
    if ctx.resilient_parsing:
        for param in command.get_params(ctx):
            param.process_value = lambda _, value: value
        vars(import_module("typer._completion_classes"))["_sanitize_help_text"] = str


class _Command(Command):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _complete_as_written(self, ctx)
        return super().parse_args(ctx, args)


class _Commands(Group):
    _only_named = False

    def about(self, name: str) -> str:
        return words_of(name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _complete_as_written(self, ctx)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._only_named = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._only_named = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return list(NAMES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in NAMES:
            return None
        if self._only_named:
            return TyperCommand(cmd_name, help=words_of(cmd_name))
        single = typer.Typer(add_completion=False, **_SETTINGS)
        single.command(cmd_name, cls=_Command)(function_of(cmd_name))
        return typer.main.get_command(single)


app = typer.Typer(
    name="llmtrap",
    cls=_Commands,
    help="Audit LLM checkpoints for signs of overfitting that need no data.",
    no_args_is_help=True,
    **_SETTINGS,
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
