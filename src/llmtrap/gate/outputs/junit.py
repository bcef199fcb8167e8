"""The JUnit output: one test case per rule and module kind, as GitLab, Jenkins and others show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from llmtrap.gate.document import Finding, Judgement, NotJudged, RuleApplied
from llmtrap.gate.outputs.phrases import gap_words, sentence
from llmtrap.gate.rules import COVERAGE
from llmtrap.report.formatting import plural, printable

LISTED = 20


def to_junit(judgement: Judgement) -> str:
    """A suite a rule, a case a module kind: failed by errors, skipped where it was not judged or the rule is off.

    Too little coverage is an error of its case rather than a failure, since nothing was found out. Warnings and
    ignored findings are in the case's output and fail nothing.
    """
    root = ET.Element("testsuites", name="llmtrap gate")
    totals = [0, 0, 0, 0]
    by_case: dict[str, dict[str, list[Finding]]] = defaultdict(lambda: defaultdict(list))
    for finding in judgement.findings:
        by_case[finding.rule][finding.kind].append(finding)
    for rule in judgement.rules:
        found = by_case[rule.id]
        gaps_of: dict[str, list[NotJudged]] = defaultdict(list)
        for item in judgement.not_judged:
            if item.rule != rule.id or item.ignored is not None:
                continue
            for kind in dict.fromkeys(item.kinds):
                gaps_of[kind].append(item)
        kinds = sorted({*rule.kinds, *found, *gaps_of})
        suite = ET.SubElement(root, "testsuite", name=f"{rule.id} {rule.name}")
        numbers = [0, 0, 0, 0]
        for kind in kinds:
            outcome = _case(suite, rule, kind, found.get(kind, []), gaps_of.get(kind, []))
            numbers[0] += 1
            if outcome:
                numbers[outcome] += 1
        _count(suite, numbers)
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    _count(root, totals)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, numbers: Sequence[int]) -> None:
    for name, number in zip(("tests", "failures", "errors", "skipped"), numbers, strict=True):
        element.set(name, str(number))


def _case(suite: ET.Element, rule: RuleApplied, kind: str, found: list[Finding], gaps: list[NotJudged]) -> int:
    """Add one case. Returns 0 passed, 1 failed, 2 error, 3 skipped."""
    case = ET.SubElement(suite, "testcase", classname=f"llmtrap.{rule.id}", name=printable(kind, 120))
    if rule.level == "off":
        ET.SubElement(case, "skipped", message="the policy turns this rule off")
        return 3
    errors = [finding for finding in found if finding.level == "error" and finding.ignored is None]
    others = [finding for finding in found if finding.level != "error" or finding.ignored is not None]
    if errors:
        tag = "error" if rule.id == COVERAGE else "failure"
        words = f"{rule.title}: {plural(len(errors), 'finding')}"
        ET.SubElement(case, tag, message=words, type=rule.name).text = _listed(errors)
    elif gaps:
        ET.SubElement(case, "skipped", message=f"not judged in {'; '.join(gap_words(item) for item in gaps[:LISTED])}")
    if others:
        ET.SubElement(case, "system-out").text = _listed(others)
    if not errors:
        return 3 if gaps else 0
    return 2 if rule.id == COVERAGE else 1


def _listed(findings: list[Finding]) -> str:
    lines = [
        f"{'ignored (' + printable(finding.ignored, 200) + ')' if finding.ignored is not None else finding.level}: "
        f"{sentence(finding)}"
        for finding in findings[:LISTED]
    ]
    if len(findings) > LISTED:
        lines.append(f"and {len(findings) - LISTED} more")
    return "\n".join(lines)
