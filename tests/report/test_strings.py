"""Every text of a report may be a stranger's: none of them leaves its place in any output."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import documents

from llmtrap.gate.document import Judgement
from llmtrap.gate.judge import judge
from llmtrap.gate.matching import CheckpointContents, match
from llmtrap.gate.outputs.github import to_annotations
from llmtrap.gate.outputs.json import to_json as judgement_json
from llmtrap.gate.outputs.junit import to_junit
from llmtrap.gate.outputs.markdown import to_markdown as judgement_markdown
from llmtrap.gate.outputs.sarif import to_sarif
from llmtrap.gate.outputs.text import to_text as judgement_text
from llmtrap.gate.policy_file import load_policy
from llmtrap.report.against import compare
from llmtrap.report.badge import to_badge
from llmtrap.report.card import to_model_card
from llmtrap.report.document import Report
from llmtrap.report.html import to_html
from llmtrap.report.json import to_json
from llmtrap.report.markdown import to_markdown
from llmtrap.report.table import to_csv
from llmtrap.report.text import plain, to_text

EVIL = (
    "x\n\n# No traps found\n\n![p](http://127.0.0.1:9/p.png) [c](javascript:alert(1)) @everyone <img src=x onerror=p> "
    "\x1b[2J\x1b]0;pwned\x07 ##[set-output name=a]b ##vso[task.complete]c ::error::d [/bold] \u202e"
)
CONTROL = r"[\x00-\x08\x0b-\x1f\x7f\u202e]|##\w*\["
# Texts of which only certain words are taken at all.
FIXED = {"schema", "band", "kind", "method", "traps", "trap_rule", "level", "rule", "weight", "axis"}


def texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document has texts, one of each list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:1]):
            yield from texts(inner, (*path, number))
    elif isinstance(value, str):
        yield path


def with_text(document: dict[str, Any], path: tuple[Any, ...], text: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    at: Any = copy
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = text
    return copy


def reports() -> Iterator[tuple[str, Report, Report]]:
    base = documents.trapped_base()
    for name in ("trapped", "partial", "broken"):
        document = getattr(documents, name)().to_json_dict()
        document["matrices"][0]["aliases"] = ["an alias"]
        document["settings"]["include"] = ["a glob"]
        document["target"] |= {"base": "a base", "revision": "a revision"}
        for path in texts(document):
            if path[-1] not in FIXED or path[0] == "target":
                changed = with_text(document, path, EVIL)
                yield f"{name}:{'.'.join(map(str, path))}", Report.model_validate_json(json.dumps(changed)), base


CASES = list(reports())


def judged(report: Report, base: Report) -> Judgement:
    matched = match(CheckpointContents.of_report(report), CheckpointContents.of_report(base))
    return judge(matched, load_policy(), datetime.date(2026, 1, 1))


@pytest.mark.parametrize(("name", "report", "base"), CASES, ids=[case[0] for case in CASES])
def test_no_text_leaves_its_place(name: str, report: Report, base: Report) -> None:
    verdict = judged(report, base)
    steering = re.compile(rf"{CONTROL}|^::error::d|^# No traps found", re.M)
    shown = {
        "plain": plain(report, compare(report, base)),
        "terminal": to_text(report, compare(base, report)),
        "gate text": judgement_text(verdict),
        "json": to_json(report),
        "gate json": judgement_json(verdict),
        "repr": repr(report) + repr(report.matrices[0]),
    }
    for output, text in shown.items():
        assert not steering.search(text), (output, steering.search(text))
    for text in (to_annotations(verdict), to_sarif(verdict), to_junit(verdict), to_csv(report), to_badge(report)):
        assert not re.search(CONTROL, text)
        assert not re.search(r"^::error::d", text, re.M)
    _, card = to_model_card(report).split("\n---\n")
    for text in (to_markdown(report, compare(report, base)), judgement_markdown(verdict), card):
        assert not re.search(
            r"\]\(|<img|@everyone|://127|^# No traps found|[\x00-\x08\x0b-\x1f\x7f\u202e]|##\w*\[", text, re.M
        )
    for page in (to_html(report, compare(report, base)), report._repr_html_(), to_badge(report)):
        assert "<img src=x" not in page
