"""`--help`: options by group and two examples; drawn by Rich on a terminal, plain text elsewhere, never cut short."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

from llmtrap.cli.blame import from_environment
from llmtrap.cli.examples import EXAMPLES

Rows: TypeAlias = list[tuple[str, str]]

_NARROWEST, _WIDEST, _NAMES = 40, 100, 30
_MAIN = "Options"
_GROUPS: dict[str, tuple[str, ...]] = {
    "Which weights": (
        "demo", "include", "exclude", "part", "split-fused", "family", "subfolder", "revision", "baseline-revision",
        "revisions", "points", "matrix", "entry", "top", "download",
    ),
    "What is measured": (
        "traps", "trap-rule", "no-alpha", "shuffles", "seed", "reference", "paper", "screen", "matrices",
    ),
    "What is written": (
        "json", "html", "markdown", "csv", "model-card", "badge", "output", "out", "name", "full-paths", "no-digest",
        "update-baseline", "accept", "expires", "index",
    ),
    "Where and how it runs": (
        "device", "backend", "workers", "stall-timeout", "engine", "journal", "fresh", "every", "settle", "idle",
        "once",
    ),
    "General": ("quiet", "verbose", "version", "install-completion", "show-completion", "help"),
}  # fmt: skip
"""Groups in the order in which they are shown, after those options that a command has for itself."""

COMMAND_GROUPS: dict[str, tuple[str, ...]] = {
    "Audit a checkpoint": ("audit", "inspect", "report", "explain", "merge"),
    "Judge a change, follow a run": ("gate", "trajectory", "watch"),
    "Find out what it means": ("ablate", "repair", "verify", "calibrate", "reference"),
    "This installation": ("schema", "doctor"),
}


def is_drawn() -> bool:
    """Whether help goes to a terminal that shows lines and colours."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def group_of(option: str) -> str:
    """The group of an option, by its long name without dashes; a command's own are under Options."""
    return next((group for group, names in _GROUPS.items() if option in names), _MAIN)


class Command(TyperCommand):
    """A command whose help shows its options by group, and examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the whole help."""
        _write(formatter, self.get_usage(ctx), self.help or "", [*_parameters(self, ctx), *_examples(self.name)])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; a value from the environment is blamed on its variable."""
        typed = list(args)
        try:
            return list(super().parse_args(ctx, args))
        except BadParameter as error:
            error.message += from_environment(" ".join(getattr(error.param, "opts", ())), typed)
            raise


class Group(TyperGroup):
    """The program, whose help shows what its commands do in whole sentences."""

    def about(self, name: str) -> str:
        """What a command's help says, from its first line on."""
        raise NotImplementedError

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the whole help."""
        commands = [
            (group, [(name, self.about(name).split("\n\n")[0].replace("\n", " ")) for name in names])
            for group, names in COMMAND_GROUPS.items()
        ]
        _write(formatter, self.get_usage(ctx), self.help or "", [*commands, *_examples(""), *_parameters(self, ctx)])


def _parameters(command: Any, ctx: Any) -> list[tuple[str, Rows]]:
    arguments: Rows = []
    groups: dict[str, Rows] = {group: [] for group in (_MAIN, *_GROUPS)}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(record)
        else:
            long = max(parameter.opts, key=len).lstrip("-")
            groups[group_of(long)].append(record)
    return [(title, rows) for title, rows in {"Arguments": arguments, **groups}.items() if rows]


def _examples(name: str | None) -> list[tuple[str, Rows]]:
    return [("Examples", [(f"llmtrap {line}", what) for line, what in EXAMPLES.get(name or "", ())])]


def _write(formatter: Any, usage: str, about: str, sections: Sequence[tuple[str, Rows]]) -> None:
    if is_drawn():
        formatter.write(_drawn(usage, about, sections))
        return
    formatter.width = max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST) - 2)
    formatter.write(usage + "\n")
    _plain_text(formatter, about)
    for title, rows in sections:
        with formatter.section(title):
            _plain_rows(formatter, title, rows)


def _plain_text(formatter: Any, about: str) -> None:
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(about)


def _plain_rows(formatter: Any, title: str, rows: Rows) -> None:
    if title != "Examples":
        formatter.write_dl(rows, col_max=_NAMES)
        return
    for line, what in rows:
        formatter.write(f"{' ' * formatter.current_indent}{line}\n")
        with formatter.indentation():
            formatter.write_text(what)


def _drawn(usage: str, about: str, sections: Iterable[tuple[str, Rows]]) -> str:
    """As Rich draws it for this terminal, its colours by the terminal's own means."""
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(_NARROWEST, min(console.width, _WIDEST + 20))
    with console.capture() as drawn:
        console.print(Padding(Text(usage, "bold"), (1, 1, 0, 1)))
        console.print(Padding(Text("\n\n".join(" ".join(p.split("\n")) for p in about.split("\n\n"))), (1, 1)))
        for title, rows in sections:
            if title == "Examples":
                body: Any = Group(*(Text.assemble((line, "cyan"), f"\n  {what}") for line, what in rows))
            else:
                body = Table.grid(padding=(0, 2))
                body.add_column(style="bold cyan", max_width=_NAMES, overflow="fold")
                body.add_column(overflow="fold")
                for name, what in rows:
                    body.add_row(Text(name), Text(what))
            console.print(Panel(body, title=title, title_align="left", border_style="dim"))
    return drawn.get()
