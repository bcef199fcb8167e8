"""Outputs: valid for those who read them, bounded, stable, and safe whatever a tensor is called."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from tests.support import documents
from tests.support.documents import matrix

from llmtrap.gate.document import Judgement, NotJudged
from llmtrap.gate.outputs import OUTPUTS
from llmtrap.gate.outputs.github import to_annotations, to_summary
from llmtrap.gate.outputs.html import to_page
from llmtrap.gate.outputs.junit import to_junit
from llmtrap.gate.outputs.markdown import to_markdown
from llmtrap.gate.outputs.sarif import to_sarif
from llmtrap.gate.outputs.text import to_text
from llmtrap.gate.run import GateResult

SARIF = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0.json").read_text())


@pytest.fixture
def violated(judged) -> Judgement:
    return judged(documents.trapped(), documents.trapped_base())


@pytest.fixture
def crowded(judged) -> Judgement:
    now = [matrix(f"layers.{k}.mlp.up", layer=k, role="up", method="measured", causes=[("entry", 1.5 + k / 1000)])
           for k in range(1200)]  # fmt: skip
    return judged(now)


def results(text: str) -> list[dict]:
    return json.loads(text)["runs"][0]["results"]


@pytest.fixture(params=["violated", "crowded", "hostile", "passed", "nothing"])
def judgement(request: pytest.FixtureRequest, judged) -> Judgement:
    if request.param == "passed":
        return judged(documents.clean(), documents.clean())
    if request.param == "nothing":
        return judged(documents.empty())
    return request.getfixturevalue(request.param)


def test_sarif_keeps_to_the_official_schema_and_to_what_github_takes(judgement: Judgement) -> None:
    log = json.loads(to_sarif(judgement))
    jsonschema.Draft202012Validator(SARIF).validate(log)
    run = log["runs"][0]
    assert len(run["results"]) <= 1000
    assert run["properties"]["resultsLeftOut"] == max(0, len(judgement.findings) - 1000)
    for result in run["results"]:
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "llmtrap.toml"
        assert physical["region"]["startLine"] >= 1
        assert result["partialFingerprints"]["llmtrapFinding/v1"]
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]


def test_sarif_names_the_tensor_and_suppresses_what_is_ignored(judged) -> None:
    now = [matrix("layers.0.mlp.up", layer=0, role="up", method="measured", causes=[("entry", 2.0)])]
    ignore = [{"rule": "LT011", "match": "*", "reason": "known"}]
    (result,) = results(to_sarif(judged(now, ignore=ignore)))
    assert result["suppressions"] == [{"kind": "external", "justification": "known"}]
    assert result["locations"][0]["logicalLocations"] == [
        {"name": "layers.0.mlp.up", "fullyQualifiedName": "model.layers.0.mlp.up.weight", "kind": "resource"}
    ]


def test_sarif_points_at_the_policy_file_and_the_rule_s_line(violated: Judgement) -> None:
    rules = tuple(rule.model_copy(update={"line": 12}) for rule in violated.rules)
    policy = violated.policy.model_copy(update={"path": "./ci/my policy.toml"})
    for result in results(to_sarif(violated.model_copy(update={"rules": rules, "policy": policy}))):
        physical = result["locations"][0]["physicalLocation"]
        assert physical == {"artifactLocation": {"uri": "ci/my%20policy.toml"}, "region": {"startLine": 12}}


def test_fingerprints_are_the_same_in_every_run(violated: Judgement) -> None:
    assert to_sarif(violated) == to_sarif(Judgement.model_validate(violated.to_json_dict()))


def test_junit_has_a_case_for_each_rule_and_kind_and_counts_right(judgement: Judgement) -> None:
    root = ET.fromstring(to_junit(judgement))  # noqa: S314 - our own file
    cases = root.findall("./testsuite/testcase")
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names)
    expected = {(f"llmtrap.{rule.id}", kind) for rule in judgement.rules for kind in rule.kinds}
    assert len(names) >= len(expected)
    for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(root.get(attribute, "")) == len(root.findall(f"./testsuite/testcase/{tag}"))
    assert int(root.get("tests", "")) == len(cases)
    failed = {case.get("classname", "")[8:] for case in cases if case.find("failure") is not None}
    assert failed == {finding.rule for finding in judgement.errors} - {"LT006"}
    assert (root.get("errors") != "0") == any(finding.rule == "LT006" for finding in judgement.errors)


def test_junit_looks_at_each_gap_once_however_many_kinds_there_are(violated: Judgement) -> None:
    class Counted(tuple):
        looked_at = 0

        def __iter__(self):
            Counted.looked_at += 1
            return super().__iter__()

        def __contains__(self, item: object) -> bool:
            Counted.looked_at += 1
            return super().__contains__(item)

    rule = violated.rules[0]
    kinds = [f"layers.mlp.role{k}" for k in range(300)]
    gaps = tuple(
        NotJudged(rule=rule.id, name=rule.name, level="warn", reason="not measured", matrices=1, ids=(), kinds=())
        .model_copy(update={"kinds": Counted([kind])})
        for kind in kinds
    )  # fmt: skip
    findings = tuple(violated.findings[0].model_copy(update={"rule": rule.id, "kind": kind}) for kind in kinds)

    root = ET.fromstring(to_junit(violated.model_copy(update={"not_judged": gaps, "findings": findings})))  # noqa: S314

    assert {case.get("name") for case in root.iter("testcase")} >= set(kinds)
    assert Counted.looked_at <= 3 * len(gaps)


def test_junit_opens_in_another_library(violated: Judgement, tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    (tmp_path / "junit.xml").write_text(to_junit(violated))
    opened = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert opened.failures == len({(f.rule, f.kind) for f in violated.errors})
    assert {case.classname for suite in opened for case in suite} == {f"llmtrap.{rule.id}" for rule in violated.rules}


COMMAND = re.compile(
    r"::(error|warning) file=llmtrap\.toml,line=\d+,title=LT\d{3} [a-z0-9-]+::[^\r\n]+|::notice title=.*"
)


def test_annotations_are_commands_at_most_ten_worst_first(judgement: Judgement) -> None:
    lines = to_annotations(judgement).splitlines()
    assert len(lines) <= 10
    assert len(lines) == min(10, len(judgement.errors) + len(judgement.warnings))
    for line in lines:
        assert COMMAND.fullmatch(line)
    levels = [line[2] for line in lines if not line.startswith("::notice")]
    assert levels == sorted(levels)


def test_no_output_of_hostile_names_starts_a_command_or_steers_a_terminal(hostile: Judgement) -> None:
    for text in (
        to_text(hostile),
        to_annotations(hostile),
        OUTPUTS["json"](GateResult(hostile, documents.hostile(), None, 0)),
    ):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text)
    for line in to_text(hostile).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_markdown_of_hostile_names_opens_no_tag_and_calls_for_nobody(hostile: Judgement) -> None:
    text = to_markdown(hostile)
    assert set(re.findall(r"</?(\w+)", text)) <= {"code"}
    outside = re.sub(r"<code>.*?</code>", "", text)
    assert "@" not in outside
    assert "](" not in outside
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows if "LT011" in row} == {5}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found += [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            self.found.append(tag)


def test_html_is_the_verdict_and_then_the_report_s_page_against_the_base(violated: Judgement) -> None:
    text = to_page(GateResult(violated, documents.trapped(), documents.trapped_base(), 0))
    assert "<title>Violated: " in text
    gate, verdict = text.index('<section id="gate"'), text.index('<section id="verdict"')
    assert gate < text.index(violated.headline) < text.index("LT001 new-trap</td>") < verdict
    assert "org/base-0.5b" in text[verdict:]


def test_html_of_inherited_traps_is_titled_by_the_gate_s_verdict(judged) -> None:
    now = documents.trapped()
    text = to_page(GateResult(judged(now, now), now, now, 0))
    assert "<title>Passed: " in text
    assert "Traps that it counts may be the base's own" in text


def test_html_of_hostile_names_adds_no_element(hostile: Judgement) -> None:
    parser = Tags()
    parser.feed(to_page(GateResult(hostile, documents.hostile(), None, 0)))
    assert parser.found == []


def test_html_lists_so_many_findings_and_says_how_many_more(crowded: Judgement) -> None:
    text = to_page(GateResult(crowded, documents.trapped(), None, 0))
    assert text.count("LT011 max-traps</td>") == 50
    assert "And 1,150 findings more in the JSON output" in text


def test_the_summary_keeps_within_what_github_takes(crowded: Judgement) -> None:
    assert len(to_summary(crowded).encode()) < 1_000_000
    assert len(to_summary(crowded, room=4000).encode()) <= 4000


def test_the_text_says_the_verdict_first_and_why(violated: Judgement) -> None:
    lines = to_text(violated).splitlines()
    assert lines[0].startswith("Violated: ")
    assert any(line.startswith("error   LT001 new-trap: layers.0.mlp.down: new trap, 9.4 times") for line in lines)
    assert any(line.startswith("false alarms  at most 0.0051 by chance") for line in lines)


def test_the_text_is_wrapped_for_a_terminal_and_whole_in_a_pipe(violated: Judgement) -> None:
    whole, wrapped = to_text(violated), to_text(violated, width=80)
    assert max(len(line) for line in wrapped.splitlines()) <= 80 < max(len(line) for line in whole.splitlines())
    assert wrapped.split() == whole.split()
    first = wrapped.splitlines().index(next(line for line in wrapped.splitlines() if line.startswith("error   LT001")))
    assert wrapped.splitlines()[first + 1].startswith(" " * 8)
    assert sum(line.startswith("error") for line in whole.splitlines()) == len(violated.errors)


def test_json_is_the_document(violated: Judgement) -> None:
    gated = GateResult(violated, documents.trapped(), None, 0)
    assert Judgement.model_validate_json(OUTPUTS["json"](gated)) == violated
