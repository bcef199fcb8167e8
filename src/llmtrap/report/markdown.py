"""The Markdown output: what people paste into an issue, a pull request or a model card."""

from __future__ import annotations

import re
from pathlib import Path

from llmtrap.report.actions import Action, actions, where_to_run
from llmtrap.report.against import CHANGED, Comparison
from llmtrap.report.calibrated import calibrated
from llmtrap.report.comparison_text import CHANGE_WORDS, against_words, alpha_shift_words, judge_against
from llmtrap.report.document import Finding, Report
from llmtrap.report.documentation import page_address
from llmtrap.report.explanations import page_of
from llmtrap.report.facts import is_notable
from llmtrap.report.formatting import number, plural, printable, size
from llmtrap.report.run_words import run_words
from llmtrap.report.verdict import (
    LONGEST_FINDING,
    MEAN_SHIFTS_ARE_USUAL,
    NO_PROOF,
    WHAT_IT_IS,
    finding,
    remembered_words,
    tensor_finding,
)
from llmtrap.report.worst_rows import notable_rows
from llmtrap.report.write import write_whole

_KEPT = frozenset(" .,;:()/%=+-−–×±²‖καλσ₁'")
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")
# GitHub makes a link of a bare address, between tags too.
_ADDRESS = re.compile(r"://|www\.", re.IGNORECASE)


def code(name: str, limit: int = 160) -> str:
    """A name from a file as a code span that cannot end early, open a tag, break a table or call for a person."""
    shown = printable(name, limit)
    if _PLAIN.fullmatch(shown):
        return f"`{shown}`"
    spelled = "".join(c if _PLAIN.fullmatch(c) else f"&#{ord(c)};" for c in shown)
    return f"<code>{_without_addresses(spelled)}</code>"


def plain_text(text: str, limit: int | None = LONGEST_FINDING) -> str:
    """Words with names from a file in them, so that no character of them is markup: letters and the like are kept."""
    spelled = "".join(c if c.isalnum() or c in _KEPT else f"&#{ord(c)};" for c in printable(text, limit))
    return _without_addresses(spelled)


def _without_addresses(spelled: str) -> str:
    return _ADDRESS.sub(lambda found: found[0].replace(":", "&#58;").replace(".", "&#46;"), spelled)


def to_markdown(report: Report, comparison: Comparison | None = None, limit: int = 20) -> str:
    """The report as GitHub-flavoured Markdown.

    Args:
        report: the document.
        comparison: the same report against its base, if there is one.
        limit: the most rows of a table.
    """
    answers = judge_against(report, comparison)
    revision = f" at {code(report.target.revision)}" if report.target.revision else ""
    parts = [
        f"# {answers.word}: {code(report.target.name)}",
        f"{plain_text(answers.headline)} {answers.meaning}",
        _facts(report, comparison),
    ]
    if comparison is not None:
        parts += _against(comparison, limit)
    if report.findings:
        lines = [_bullet(item) for item in report.findings[:limit]]
        more = [f"- and {len(report.findings) - limit:,} more"] if len(report.findings) > limit else []
        parts += ["## What was found", "\n".join(lines + more)]
    todo = actions(report, comparison)
    if todo:
        parts += ["## What to do now", "\n".join(_step(n, action) for n, action in enumerate(todo, start=1))]
        parts += [plain_text(where)] if (where := where_to_run(report, todo)) else []
    rows = notable_rows(report.matrices, limit)
    if rows:
        rest = sum(is_notable(matrix) for matrix in report.matrices) - len(rows)
        lines = [f"| {code(r.name)} | {_cell(r.alpha)} | {r.traps} | {r.strength} | {_cell(r.why)} |" for r in rows]
        more = [f"And {plural(rest, 'matrix')} more in the full report."] if rest else []
        head = ["| matrix | α | traps | × edge | why |", "|---|---|---|---|---|"]
        parts += ["## Worst matrices", "\n".join(head + lines), *more]
    if report.tensors:
        lines = [f"- {code(item.tensor)}: {tensor_finding(item)}" for item in report.tensors[:limit]]
        more = [f"- and {len(report.tensors) - limit:,} more"] if len(report.tensors) > limit else []
        parts += ["## Broken values beside the matrices", "\n".join(lines + more)]
    left_out = [item for item in report.coverage.skipped if item.kind in ("unmeasured", "unreadable")]
    if left_out:
        left_out.sort(key=lambda item: -item.parameters)
        lines = [f"- {code(item.tensor)}: {code(item.reason, 300)}" for item in left_out[:limit]]
        more = [f"- and {len(left_out) - limit:,} more"] if len(left_out) > limit else []
        parts += ["## Left out", "\n".join(lines + more)]
    if report.coverage.failed:
        failed = report.coverage.failed
        lines = [f"- {code(item.id)}: {code(item.error, 300)}" for item in failed[:limit]]
        more = [f"- and {len(failed) - limit:,} more"] if len(failed) > limit else []
        parts += ["## Not measured", "\n".join(lines + more)]
    tool = report.tool
    written = f"Written by {code(tool.name)} {code(tool.version)}, target {code(report.target.name)}{revision}."
    parts += ["## What this means", f"{WHAT_IT_IS} {NO_PROOF}", calibrated(), written]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report, comparison: Comparison | None) -> str:
    answers, summary, settings = judge_against(report, comparison), report.summary, report.settings
    held = sum(file.bytes for file in report.target.files)
    rows = [("How sure", answers.certainty), ("Coverage", answers.coverage)]
    if answers.worst is not None:
        rows.insert(0, ("Look first at", f"{code(answers.worst.id)}: {finding(answers.worst)}"))
    if answers.alpha:
        rows.insert(1, ("α", f"{answers.alpha.removeprefix('α: ')} Median {number(summary.alpha.median)}."))
    if summary.mean_shifts:
        rows.append(("Mean shifts", f"{summary.mean_shifts:,}. {MEAN_SHIFTS_ARE_USUAL}"))
    if report.target.base is not None:
        rows.append(("Adapter of", code(report.target.base)))
    if comparison is not None:
        rows.append(("Base", f"{code(comparison.base.target.name)}. {against_words(comparison)}"))
    chosen = f"traps {settings.traps}, rule {settings.trap_rule}, {settings.shuffles} shuffles, seed {settings.seed}"
    rows.append(("Settings", f"{chosen}, {code(settings.backend, 60)}"))
    used = f"{plural(len(report.target.files), 'file')}, {size(held)}, {run_words(report)}"
    # An audit joined from its parts does not know what each of them held.
    memory = f", {size(summary.peak_rss_bytes)} of memory at most" if summary.peak_rss_bytes else ""
    rows.append(("Read", f"{used}{memory}"))
    if kept := remembered_words(report):
        rows.append(("Journal", f"{kept}."))
    return "\n".join(["| | |", "|---|---|", *(f"| **{label}** | {_cell(words)} |" for label, words in rows)])


def _against(comparison: Comparison, limit: int) -> list[str]:
    lines = []
    for change in CHANGED:
        for shift in comparison.of(change)[:limit]:
            lines.append(f"| {code(shift.matrix.id)} | {CHANGE_WORDS[change]} | {_cell(shift.why)} |")
    for shift in comparison.fell[:limit]:
        lines.append(f"| {code(shift.matrix.id)} | α fell below 2 | {alpha_shift_words(shift)} |")
    for shift in comparison.moved[:limit]:
        lines.append(f"| {code(shift.matrix.id)} | α moved | {alpha_shift_words(shift)} |")
    parts = [f"## Against {code(comparison.base.target.name)}", against_words(comparison)]
    if comparison.notes:
        parts.append("\n".join(f"- Mind: {note}." for note in comparison.notes))
    if lines:
        parts.append("\n".join(["| matrix | change | |", "|---|---|---|", *lines]))
    return parts


def _bullet(finding: Finding) -> str:
    """A finding in one line; its words hold names from files, so nothing in it is markup."""
    page = page_of(finding.kind)
    address = page_address(page)
    said = f"{plain_text(finding.text)} ({f'docs/{page}.md' if address is None else f'<{address}>'})"
    return f"- {said}" if finding.weight == "usual" else f"- **{finding.weight.capitalize()}**: {said}"


def _step(place: int, action: Action) -> str:
    """An action as an item of a numbered list; its command and its lines hold plain names alone."""
    said = f"{place}. {action.text}"
    for language, held in (("sh", action.command), ("toml", action.lines)):
        if held:
            body = "\n".join(f"   {line}".rstrip() for line in held.split("\n"))
            said += f"\n\n   ```{language}\n{body}\n   ```\n"
    return said


def _cell(text: str) -> str:
    """Our own words in a table: `<2` must not open a tag, and a bar must not end the cell."""
    if text.startswith("<code>"):
        name, end, rest = text.partition("</code>")
        return name + end + _cell(rest)
    return text.replace("<", "&lt;").replace("|", "\\|")


def write_markdown(
    report: Report, path: Path, comparison: Comparison | None = None, *, within: Path | None = None
) -> None:
    """Write the Markdown output, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_markdown(report, comparison).encode("utf-8", "backslashreplace"), within=within)
