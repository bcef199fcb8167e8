"""The model card's snippet, read as the hub reads it, and the badge, drawn by a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tests.support import documents

from llmtrap.report.badge import to_badge
from llmtrap.report.card import LINES, to_model_card
from llmtrap.report.document import Report

REPORTS = (
    documents.clean, documents.trapped, documents.over_trained, documents.partial, documents.empty, documents.broken,
    documents.hostile,
)  # fmt: skip


def named(report: Report, name: str) -> Report:
    return report.model_copy(update={"target": report.target.model_copy(update={"name": name})})


@pytest.mark.parametrize("made", REPORTS, ids=lambda made: made.__name__)
def test_the_hub_reads_the_metadata(made: Callable[[], Report]) -> None:
    report = made()
    card = ModelCard(to_model_card(report))
    assert card.data.tags == ["llmtrap"]
    assert card.data.model_name == report.target.name
    values = {result.metric_type: result.metric_value for result in card.data.eval_results or ()}
    assert values["matrices"] == report.summary.matrices
    assert values["matrices_with_traps"] == report.summary.with_traps
    assert ("alpha_median" in values) == (report.summary.alpha.median is not None)
    assert {result.task_type for result in card.data.eval_results or ()} == {"weight-audit"}
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert 1 < len(rows) <= LINES + 1


@pytest.mark.parametrize(
    "name",
    ['org/"quoted": name', "a\n---\nlicense: mit", "café/模型", "rocket \N{ROCKET}", "tab\t\x7f\x85\u2028", "- #"],
)
def test_no_name_of_a_model_changes_the_metadata(name: str) -> None:
    card = ModelCard(to_model_card(named(documents.clean(), name)))
    assert card.data.model_name == name
    assert set(card.data.to_dict()) == {"tags", "model-index"}


@pytest.mark.browser
@pytest.mark.parametrize("made", REPORTS, ids=lambda made: made.__name__)
def test_the_badge_is_drawn_with_its_words_inside(made: Callable[[], Report], open_file: Any, tmp_path: Path) -> None:
    path = tmp_path / "badge.svg"
    path.write_text(to_badge(made()), encoding="utf-8")
    page = open_file(path)
    boxes = page.evaluate(
        "() => [...document.querySelectorAll('text, path, svg')].map(it => { const b = it.getBoundingClientRect();"
        " return [it.tagName, b.left, b.right, b.top, b.bottom]; })"
    )
    sizes = {name: [box for tag, *box in boxes if tag == name] for name in ("svg", "path", "text")}
    (whole,), (left,) = sizes["svg"], sizes["path"]
    label, words = sizes["text"]
    assert whole[3] - whole[2] == 20
    assert left[0] < label[0] < label[1] < left[1] < words[0] < words[1] < whole[1]
    assert all(whole[2] <= box[2] and box[3] <= whole[3] for box in (label, words))
    assert page.evaluate("document.documentElement.querySelector('title').textContent").startswith("llmtrap: ")
