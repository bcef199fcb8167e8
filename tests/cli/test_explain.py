"""`llmtrap explain` and `llmtrap reference`: the texts of the reports, and the published models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents

from llmtrap.gate.rules import RULES
from llmtrap.report.explanations import EXPLANATIONS
from llmtrap.report.html.payload import payload
from llmtrap.report.json import to_json


@pytest.mark.parametrize("word", [*EXPLANATIONS, *RULES])
def test_every_word_and_every_rule_is_explained(word: str, invoke: Any) -> None:
    done = invoke("explain", word.lower())
    said = " ".join(done.stdout.split())
    assert done.exit_code == 0
    assert " ".join((EXPLANATIONS[word].short if word in EXPLANATIONS else RULES[word].title).split()) in said
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_a_word_all_are_listed_and_a_wrong_one_is_told_the_nearest(invoke: Any) -> None:
    assert len(invoke("explain").stdout.splitlines()) == len(EXPLANATIONS) + len(RULES)
    wrong = invoke("explain", "alfa")
    assert wrong.exit_code == 2
    assert "no word alfa. Try alpha" in wrong.stderr


def test_the_page_s_tooltips_are_the_same_texts() -> None:
    assert payload(documents.trapped())["texts"] == {key: item.short for key, item in EXPLANATIONS.items()}


def test_the_shipped_models_are_listed(invoke: Any) -> None:
    lines = invoke("reference").stdout.splitlines()
    assert lines[0] == "published models: 13 models, 10 lineages"
    assert "smollm2-135m-instruct\tllama" in lines[4]


def test_a_reference_is_built_of_reports_and_used(tmp_path: Path, invoke: Any) -> None:
    for name, report in (("a", documents.clean()), ("b", documents.trapped())):
        (tmp_path / f"{name}.json").write_text(to_json(report))
    own = tmp_path / "own.json"
    done = invoke("reference", "build", tmp_path / "a.json", tmp_path / "b.json", "--out", own, "--name", "mine")
    assert done.exit_code == 0, done.stderr
    assert json.loads(own.read_text())["name"] == "mine"
    assert invoke("reference", own).stdout.startswith("mine: 2 models, 2 lineages")
    # Two lineages are too few for any role, so nothing is rare against them.
    assert "verdict\tUsual" in invoke("report", tmp_path / "b.json", "--reference", own).stdout
    assert "verdict\tUnusual" in invoke("report", tmp_path / "b.json").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build"], "nowhere to write the reference. Name a file with --out FILE"),
        (["build", "--out", "x.json"], "a reference of no model"),
        (["a.json", "b.json"], "one reference at a time"),
        (["gone.json"], "gone.json: there is no such reference"),
        (["--out", "x.json"], "--out is of build"),
    ],
)
def test_wrong_calls_are_told(arguments: list[str], words: str, invoke: Any) -> None:
    done = invoke("reference", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
