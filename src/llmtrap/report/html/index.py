"""The index page: one table over the reports of a folder, each linked with its other faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from llmtrap.errors import LlmtrapError, TargetError
from llmtrap.report.document import Summary, Target, Tool
from llmtrap.report.html.assets import style
from llmtrap.report.html.page import content_security_policy, environment
from llmtrap.report.read import read_report
from llmtrap.report.verdict import Verdict, judge
from llmtrap.report.write import write_whole

_FACES = (("page", ".html"), ("Markdown", ".md"), ("JSON", ".json"))


@dataclass(frozen=True)
class Entry:
    """One report of the folder.

    Attributes:
        target: what was audited.
        summary: its head.
        answers: its verdict.
        tool: what wrote it.
        seed: the audit's seed.
        rule: the trap rule.
        links: name and address of each face that lies beside it, the best to read first.
    """

    target: Target
    summary: Summary
    answers: Verdict
    tool: Tool
    seed: int
    rule: str
    links: tuple[tuple[str, str], ...]


def write_index(folder: Path) -> Path:
    """Write `index.html` over all reports in a folder and its subfolders.

    Files that are no reports are named on the page, with what is wrong with them.

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
    unread: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            entries.append(_entry(path, folder))
        except LlmtrapError as error:
            unread.append((str(path.relative_to(folder)), error.problem))
    if not entries:
        raise TargetError(
            "no report in this folder", file=str(folder), remedy="Put `llmtrap audit --json` files there."
        )
    page = folder / "index.html"
    text = (
        environment()
        .get_template("index.html.j2")
        .render(
            entries=sorted(entries, key=lambda entry: entry.target.name.lower()),
            unread=unread,
            style=style(),
            csp=content_security_policy(),
        )
    )
    write_whole(page, text.encode("utf-8", "backslashreplace"))
    return page


def _entry(path: Path, folder: Path) -> Entry:
    report = read_report(path)
    links = []
    for name, suffix in _FACES:
        face = path.with_suffix(suffix)
        if face.is_file():
            links.append((name, quote(str(face.relative_to(folder)))))
    return Entry(
        target=report.target,
        summary=report.summary,
        answers=judge(report),
        tool=report.tool,
        seed=report.settings.seed,
        rule=report.settings.trap_rule,
        links=tuple(links),
    )
