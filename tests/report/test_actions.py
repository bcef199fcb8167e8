"""What to do now: commands that can be pasted as they are, and lines that the gate takes."""

from __future__ import annotations

import shlex
import tomllib

import pytest
from tests.support import documents

from llmtrap.gate.policy import Policy
from llmtrap.report.actions import actions
from llmtrap.report.against import compare
from llmtrap.report.document import Report
from llmtrap.report.explanations import EXPLANATIONS, OF_FINDING
from llmtrap.report.html import to_html
from llmtrap.report.markdown import to_markdown
from llmtrap.report.text import plain, to_text


def commands(report: Report) -> list[str]:
    return [shlex.split(action.command)[1] for action in actions(report) if action.command]


def test_a_usual_model_needs_nothing_but_to_be_a_baseline() -> None:
    (only,) = actions(documents.clean())
    assert only.command == "llmtrap gate TUNED --baseline org/clean-0.5b"


def test_of_a_rare_entry_base_ablation_repair_and_evaluation_are_named() -> None:
    report = documents.trapped()
    assert commands(report) == ["gate", "ablate", "repair"]
    assert any("was not trained on" in action.text for action in actions(report))
    ablate = next(action.command for action in actions(report) if "ablate" in action.command)
    assert ablate == "llmtrap ablate org/trapped-0.5b --matrix layers.0.mlp.down"


def test_the_lines_to_ignore_are_a_policy() -> None:
    lines = next(action.lines for action in actions(documents.trapped()) if action.lines)
    policy = Policy.model_validate(tomllib.loads(lines))
    assert [(item.rule, item.match) for item in policy.ignore] == [("LT001", "layers.0.mlp.down")]


def test_against_a_base_nobody_is_told_to_compare_with_it() -> None:
    comparison = compare(documents.trapped(), documents.trapped_base())
    assert not any("--baseline BASE" in action.command for action in actions(documents.trapped(), comparison))


def test_broken_values_are_restored_and_nothing_measured_is_looked_into() -> None:
    assert actions(documents.broken())[0].text.startswith("Restore")
    assert "layers.1.mlp.up" in actions(documents.broken())[0].text
    assert commands(documents.empty()) == ["inspect"]


@pytest.mark.parametrize("name", ["org/m; rm -rf ~", "a b", "x'y", "$(id)", "-rf", "](x) @everyone", "ä/ö"])
def test_no_name_becomes_a_command(name: str) -> None:
    report = documents.report(documents.trapped().matrices, name=name)
    for action in actions(report):
        assert name not in action.command
        assert name not in action.lines


def test_every_face_says_them() -> None:
    report = documents.trapped()
    for text in (plain(report), to_text(report, width=100), to_markdown(report), to_html(report)):
        assert "llmtrap ablate org/trapped-0.5b --matrix layers.0.mlp.down" in text
    assert to_markdown(report).count("```") % 2 == 0


def test_every_finding_leads_to_a_text_of_the_page() -> None:
    assert set(OF_FINDING.values()) <= EXPLANATIONS.keys()
    page = to_html(documents.trapped())
    for key in EXPLANATIONS:
        assert f'id="word-{key}"' in page


HOLDS = "Run the commands in the folder that holds"
SAVE = "Save the model first"


@pytest.mark.parametrize(
    ("kind", "name", "said", "unsaid"),
    [
        ("folder", "tuned", f"{HOLDS} tuned.", SAVE),
        ("memory", "Sequential", f"{SAVE}, and put its folder in the place of TARGET: the", "gate Sequential"),
        ("folder", "/m/tuned", "llmtrap gate /m/tuned --baseline", HOLDS),
        ("folder", "a b", "llmtrap gate TARGET --baseline", HOLDS),
        ("hub", "gpt2", "llmtrap gate gpt2 --baseline", HOLDS),
    ],
)
def test_it_is_said_where_the_commands_find_their_target(kind: str, name: str, said: str, unsaid: str) -> None:
    trapped = documents.trapped()
    report = trapped.model_copy(update={"target": trapped.target.model_copy(update={"kind": kind, "name": name})})
    for text in (plain(report), to_text(report, width=140), to_markdown(report), to_html(report)):
        assert said in text
        assert unsaid not in text
