"""The ablation document as JSON, Markdown, one HTML page, and a table for the terminal."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmtrap.ablation.document import AblationReport
from llmtrap.ablation.formatting import HEADERS, MEANINGS, cells, narrow_cells, notes
from llmtrap.printable import printable
from llmtrap.report.html.assets import style
from llmtrap.report.html.page import content_security_policy
from llmtrap.report.markdown import code, plain_text
from llmtrap.report.write import write_whole

_NAME = 80
_WIDE = 150
"""Columns of a terminal from which on every cell of the table has its line."""


def to_json(report: AblationReport) -> str:
    """The document as ASCII JSON text."""
    return json.dumps(report.to_json_dict(), indent=2, allow_nan=False) + "\n"


def to_markdown(report: AblationReport) -> str:
    """Verdict, table, notes and what the labels mean, as GitHub-flavoured Markdown."""
    rows = [f"| {' | '.join(HEADERS)} |", "|" + "---|" * len(HEADERS)]
    for result in report.candidates:
        first, *rest = cells(result)
        rows.append(f"| {code(first, _NAME)} | {' | '.join(map(plain_text, rest))} |")
    parts = [f"# llmtrap ablate: {code(report.target.name, _NAME)}", plain_text(report.verdict)]
    if report.candidates:
        parts.append("\n".join(rows))
    parts.append("\n".join(f"- {plain_text(note)}" for note in notes(report)))
    parts.append("\n".join(f"- **{label}**: {meaning}" for label, meaning in MEANINGS.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=ChoiceLoader([PackageLoader("llmtrap.ablation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["name"] = lambda text: printable(text, _NAME)
    made.filters["printable"] = printable
    return made


def to_html(report: AblationReport) -> str:
    """One page without scripts, that opens from disk and asks the network for nothing."""
    rows = [(result.label or "none", cells(result)) for result in report.candidates]
    page: str = (
        _environment()
        .get_template("ablation.html.j2")
        .render(
            report=report,
            headers=HEADERS,
            rows=rows,
            notes=list(notes(report)),
            meanings=MEANINGS,
            style=style(),
            csp=content_security_policy(),
        )
    )
    return page


def write(report: AblationReport, json_path: Path | None, html: Path | None, markdown: Path | None) -> str | None:
    """Write the outputs that are asked for, each whole or not at all.

    Returns:
        The one that is asked for as `-`, for standard output.

    Raises:
        OutputError: one could not be written.
    """
    piped = None
    for path, output in ((json_path, to_json), (html, to_html), (markdown, to_markdown)):
        if path == Path("-"):
            piped = output(report)
        elif path is not None:
            write_whole(path, output(report).encode("utf-8", "backslashreplace"))
    return piped


def show(report: AblationReport, console: Console) -> None:
    """The verdict, the table and the notes: for people as wide as the terminal is, for a pipe a candidate a line."""
    console.print(printable(report.verdict), soft_wrap=True)
    wide = console.width >= _WIDE or not console.is_terminal
    with_text = report.nll is not None
    headers = HEADERS if wide else ("matrix", "entry", "ΔNLL on text" if with_text else "effect", "label")
    rows = [cells(result) if wide else narrow_cells(result, with_text=with_text) for result in report.candidates]
    if rows and console.is_terminal:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell, _NAME)) for cell in row))
        console.print(table)
    elif rows:  # a pipe, whose reader wants each candidate on its line
        for line in (headers, *rows):
            console.file.write("\t".join(printable(cell, _NAME) for cell in line) + "\n")
    for note in notes(report):
        console.print(printable(note), soft_wrap=True)
    shown = {result.label for result in report.candidates}
    for label, meaning in MEANINGS.items():
        if label in shown:
            console.print(f"{label}: {meaning}", soft_wrap=True)
