"""The index page: one table over the reports of a folder, each linked with its other outputs; calibrations under it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from llmtrap.errors import LlmtrapError, TargetError
from llmtrap.report.command import audit_command
from llmtrap.report.document import Coverage, Summary, Target, Tool
from llmtrap.report.html.assets import sort_script, style
from llmtrap.report.html.page import content_security_policy, environment
from llmtrap.report.read import read_report, schema_of
from llmtrap.report.verdict import Verdict, judge
from llmtrap.report.write import write_whole

_OUTPUTS = (("page", ".html"), ("Markdown", ".md"), ("JSON", ".json"))


@dataclass(frozen=True)
class Entry:
    """One report of the folder.

    Attributes:
        target: what was audited.
        summary: its head.
        coverage: how much was measured.
        answers: its verdict.
        tool: what wrote it.
        seed: the audit's seed.
        rule: the trap rule.
        command: what measures the target again.
        finished: when the report was made, UTC in ISO 8601; empty in a report of an older version.
        links: name and address of each output that lies beside it, the best to read first.
    """

    target: Target
    summary: Summary
    coverage: Coverage
    answers: Verdict
    tool: Tool
    seed: int
    rule: str
    command: str
    finished: str
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Other:
    """Another document of llmtrap in the folder: `what` is its schema without version, such as calibration."""

    name: str
    what: str
    links: tuple[tuple[str, str], ...]


def write_index(folder: Path) -> Path:
    """Write `index.html` over all reports in a folder and its subfolders.

    Other documents of llmtrap are listed apart. Files that are neither are named on the page, with what is wrong.

    Args:
        folder: where the reports are; the page goes there too.

    Returns:
        The page's path.

    Raises:
        TargetError: there is no such folder, or no report in it.
        OutputError: the page could not be written.
    """
    if not folder.is_dir():
        raise TargetError("there is no such folder", file=str(folder), remedy="Name a folder of reports.")
    entries: list[Entry] = []
    others: list[Other] = []
    unread: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*.json")):
        name = str(path.relative_to(folder))
        try:
            entries.append(_entry(path, folder))
        except LlmtrapError as error:
            what = _kind(path)
            if what is None:
                unread.append((name, error.problem))
            else:
                others.append(Other(name.removesuffix(".json"), what, _links(path, folder)))
    if not entries:
        raise TargetError(
            "no report in this folder", file=str(folder), remedy="Put `llmtrap audit --json` files there."
        )
    page, sort = folder / "index.html", sort_script()
    text = (
        environment()
        .get_template("index.html.j2")
        .render(
            entries=sorted(entries, key=lambda entry: entry.target.name.lower()),
            others=others,
            unread=unread,
            style=style(),
            sort=sort.text,
            csp=content_security_policy(sort.digest),
        )
    )
    write_whole(page, text.encode("utf-8", "backslashreplace"), within=folder)
    return page


def _entry(path: Path, folder: Path) -> Entry:
    report = read_report(path)
    return Entry(
        target=report.target,
        summary=report.summary,
        coverage=report.coverage,
        answers=judge(report),
        tool=report.tool,
        seed=report.settings.seed,
        rule=report.settings.trap_rule,
        command=audit_command(report),
        finished="" if report.run is None else report.run.finished,
        links=_links(path, folder),
    )


def _links(path: Path, folder: Path) -> tuple[tuple[str, str], ...]:
    outputs = [(name, path.with_suffix(suffix)) for name, suffix in _OUTPUTS]
    return tuple(
        (name, quote(os.fsencode(output.relative_to(folder).as_posix())))
        for name, output in outputs
        if output.is_file()
    )


def _kind(path: Path) -> str | None:
    """What another document of llmtrap is, by its schema; None where it is none, or a report that cannot be read."""
    schema = schema_of(path)
    if schema is None or not schema.startswith("llmtrap.") or schema.startswith("llmtrap.report/"):
        return None
    return schema.removeprefix("llmtrap.").partition("/")[0]
