"""`llmtrap explain`: what a word of a report, or a rule of the gate, means."""

from __future__ import annotations

import difflib
import textwrap
from typing import Annotated

import typer

from llmtrap.cli.console import guarded, output
from llmtrap.errors import UsageError
from llmtrap.printable import printable


def explain_command(
    word: Annotated[
        str | None, typer.Argument(metavar="WORD", help="alpha, trap, LT001, ...; without it: all.")
    ] = None,
) -> None:
    """Say what a word of a report, or a rule of the gate, means."""
    # Imported here: the gate's rules and the report's texts are of no use to other commands' start.
    from llmtrap.gate.rules import RULES
    from llmtrap.report.explanations import EXPLANATIONS

    with guarded():
        write = output().file.write
        if word is None:
            for name, item in EXPLANATIONS.items():
                write(f"{name:16} {item.title}\n")
            for rule in RULES.values():
                write(f"{rule.id:16} {rule.title}\n")
            return
        asked = word.strip().lower().replace("-", "_").replace(" ", "_")
        if asked in EXPLANATIONS:
            item = EXPLANATIONS[asked]
            parts = [item.title, item.short, item.more, f"More: docs/{item.page}.md"]
        elif asked.upper() in RULES:
            rule = RULES[asked.upper()]
            says = " ".join((rule.settings.__doc__ or "").split())
            numbers = [f"{name}: {field.description}" for name, field in rule.settings.model_fields.items()]
            parts = [f"{rule.id} {rule.name}: {rule.title}.", says, *numbers, "More: docs/gate.md"]
        else:
            near = difflib.get_close_matches(asked, [*EXPLANATIONS, *(rule.lower() for rule in RULES)], 3)
            remedy = f"Try {', '.join(near)}" if near else "Run `llmtrap explain` for the list"
            raise UsageError(f"no word {printable(word, 60)}", remedy=remedy)
        for part in parts:
            if part:
                write(textwrap.fill(part, 78, break_on_hyphens=False) + "\n")
