"""The terminal output: the verdict and a closing table of the worst matrices; plain lines where it is piped."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llmtrap.report.actions import Action, actions, where_to_run
from llmtrap.report.against import CHANGED, Comparison
from llmtrap.report.comparison_text import CHANGE_WORDS, against_words, alpha_shift_words, judge_against
from llmtrap.report.document import Finding, Report, Weight
from llmtrap.report.explanations import OF_FINDING, page_of
from llmtrap.report.facts import is_notable
from llmtrap.report.formatting import join, name_some, number, plural, printable, size
from llmtrap.report.run_words import run_words
from llmtrap.report.verdict import LONGEST_FINDING, NO_PROOF, Tone, Verdict, remembered_words, tensor_finding
from llmtrap.report.worst_rows import Row, notable_rows

_STYLES: dict[Tone, str] = {
    "red": "bold red",
    "amber": "bold yellow",
    "green": "bold green",
    "grey": "bold",
}
_MARKS: dict[Weight, str] = {"broken": "!", "unusual": "▲", "usual": "·"}


def show(report: Report, console: Console, comparison: Comparison | None = None, limit: int = 10) -> None:
    """Print the report to a console: a table for people, plain tab-separated lines for a pipe.

    Args:
        report: the document.
        console: where to; whether it is a terminal decides the form.
        comparison: the same report against its base, if there is one.
        limit: the most matrices to list.
    """
    if console.is_terminal:
        console.print(renderable(report, comparison, limit, console.width))
    else:
        console.file.write(plain(report, comparison, limit))


def renderable(
    report: Report, comparison: Comparison | None = None, limit: int = 10, width: int = 80
) -> RenderableType:
    """The report for a terminal of this width, 60 columns or more."""
    longest = max(24, width - 48)
    answers = judge_against(report, comparison)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, words in _facts(report, answers, comparison, limit):
        grid.add_row(label, Text(words))
    title = Text(answers.word, style=_STYLES[answers.tone])
    title.append("  " + printable(report.target.name, 60), style="bold")
    parts: list[RenderableType] = [title, grid]
    if report.findings:
        parts += [Text(), Text("What was found", style="bold"), _found(report.findings, limit)]
        parts.append(Text(_explained(report.findings[:limit]), style="dim"))
    todo = actions(report, comparison)
    if todo:
        parts += [Text(), Text("What to do now", style="bold"), _todo(todo)]
        if where := where_to_run(report, todo):
            parts.append(Text(where, style="dim"))
    rows = notable_rows(report.matrices, limit)
    if rows:
        parts += [Text(), _table(rows, longest), Text(_more(report, len(rows)), style="dim")]
    if comparison is not None and any(comparison.of(change) for change in CHANGED):
        parts += [Text(), Text("Against the base", style="bold"), _changes(comparison, limit, longest)]
    return Group(*parts)


def _table(rows: list[Row], longest: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("worst matrices", no_wrap=True)
    table.add_column("α", justify="left", no_wrap=True)
    table.add_column("traps", justify="right", no_wrap=True)
    table.add_column("× edge", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(Text(printable(row.name, longest)), row.alpha, row.traps, row.strength, row.why)
    return table


def _found(findings: Sequence[Finding], limit: int) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for item in findings[:limit]:
        style = "" if item.weight == "usual" else "bold"
        table.add_row(Text(_MARKS[item.weight], style=style), Text(printable(item.text, LONGEST_FINDING), style=style))
    if len(findings) > limit:
        table.add_row("", Text(f"and {plural(len(findings) - limit, 'finding')} more, in the report", style="dim"))
    return table


def _explained(findings: Sequence[Finding]) -> str:
    """Where what was found is explained: the command's words, and the pages."""
    words = dict.fromkeys(OF_FINDING[item.kind] for item in findings)
    pages = dict.fromkeys(f"docs/{page_of(item.kind)}.md" for item in findings)
    return f"What that means: llmtrap explain {' | '.join(words)}; {join(list(pages))}"


def _todo(todo: Sequence[Action]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for place, action in enumerate(todo, start=1):
        said = Text(action.text)
        if action.command:
            said.append("\n" + action.command, style="bold")
        if action.lines:
            said.append("\n" + action.lines, style="dim")
        table.add_row(f"{place}.", said)
    return table


def _changes(comparison: Comparison, limit: int, longest: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for change in CHANGED:
        for shift in comparison.of(change)[:limit]:
            table.add_row(Text(printable(shift.matrix.id, longest)), CHANGE_WORDS[change], shift.why)
    return table


def _more(report: Report, shown: int) -> str:
    rest = sum(is_notable(matrix) for matrix in report.matrices) - shown
    return f"and {plural(rest, 'matrix')} more, in the report" if rest else NO_PROOF


def _facts(report: Report, answers: Verdict, comparison: Comparison | None, limit: int) -> list[tuple[str, str]]:
    target, summary = report.target, report.summary
    held = sum(file.bytes for file in target.files)
    facts = [("found", answers.headline)]
    if summary.mean_shifts:
        facts.append(("mean shifts", f"{summary.mean_shifts:,}, counted apart: healthy networks have them too"))
    if answers.alpha:
        median = number(summary.alpha.median)
        facts.append(("α", f"{answers.alpha.removeprefix('α: ')} Median {median}."))
    facts += [("how sure", answers.certainty), ("coverage", answers.coverage)]
    facts += [(printable(item.tensor, 60), tensor_finding(item)) for item in report.tensors[:limit]]
    if answers.unmeasured:
        facts.append(("not measured", name_some(answers.unmeasured)))
    if comparison is not None:
        facts.append(("base", f"{printable(comparison.base.target.name, 60)}. {against_words(comparison)}"))
        facts += [("", f"Mind: {note}.") for note in comparison.notes]
    revision = f", revision {printable(target.revision, 60)}" if target.revision else ""
    read = f"{plural(len(target.files), 'file')}, {size(held)}{revision}"
    if target.base is not None:
        facts.append(("adapter of", printable(target.base, 100)))
    if report.run is not None and report.run.name:
        facts.append(("named", printable(report.run.name, 100)))
    memory = f", {size(summary.peak_rss_bytes)} of memory" if summary.peak_rss_bytes else ""
    run = f"seed {report.settings.seed}, {run_words(report)}{memory}"
    kept = remembered_words(report)
    return [*facts, ("read", read), ("run", f"{run}; {kept}" if kept else run)]


def plain(report: Report, comparison: Comparison | None = None, limit: int = 10) -> str:
    """The report as lines of `key<TAB>text`, for a pipe: nothing is wrapped, cut to a width, or coloured."""
    answers = judge_against(report, comparison)
    lines = [("target", printable(report.target.name)), ("verdict", answers.word)]
    lines += [(label or "base", words) for label, words in _facts(report, answers, comparison, limit)]
    text = "".join(f"{label}\t{words}\n" for label, words in lines)
    for item in report.findings[:limit]:
        text += f"{item.weight}\t{printable(item.text, LONGEST_FINDING)}\n"
    todo = actions(report, comparison)
    for action in todo:
        pasted = action.lines.replace("\n", "; ")
        text += "\t".join(part for part in ("do", action.text, action.command or pasted) if part) + "\n"
    if where := where_to_run(report, todo):
        text += f"do\t{where}\n"
    for row in notable_rows(report.matrices, limit):
        name = printable(row.name, 400)
        text += f"matrix\t{name}\tα {row.alpha}\ttraps {row.traps}\t× edge {row.strength}\t{row.why}\n"
    if comparison is not None:
        for change in CHANGED:
            for shift in comparison.of(change)[:limit]:
                text += f"{change}\t{printable(shift.matrix.id, 400)}\t{shift.why}\n"
        for shift in comparison.fell[:limit]:
            text += f"fell\t{printable(shift.matrix.id, 400)}\tα {alpha_shift_words(shift)}\n"
        for shift in comparison.moved[:limit]:
            text += f"moved\t{printable(shift.matrix.id, 400)}\tα {alpha_shift_words(shift)}\n"
    return text


def to_text(report: Report, comparison: Comparison | None = None, width: int = 80, limit: int = 10) -> str:
    """What a terminal of this width shows, without its colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable(report, comparison, limit, width))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
