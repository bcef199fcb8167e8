"""The SARIF 2.1.0 output: for code scanning. Each result points at the policy file, and names the tensor.

A weight file has no lines, and one result without a physical location makes GitHub refuse the whole file: so every
result has one, the policy file at the table of its rule.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from llmtrap.gate.document import Finding, Judgement, NotJudged
from llmtrap.gate.outputs.phrases import NAME_LENGTH, gap_words, line_of, policy_path, sentence
from llmtrap.report.formatting import printable

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
LIMIT = 1000
_LEVELS = {"error": "error", "warn": "warning", "off": "none"}


def to_sarif(judgement: Judgement, limit: int = LIMIT) -> str:
    """The findings, worst first; ignored ones as suppressed results.

    Args:
        judgement: the document.
        limit: the most results; how many were left out is in the run's properties.
    """
    listed = [*judgement.errors, *judgement.warnings, *judgement.ignored]
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "llmtrap",
                "version": judgement.tool.version,
                "informationUri": "https://arxiv.org/abs/2602.02859",
                "rules": [
                    {
                        "id": rule.id,
                        "name": _camel(rule.name),
                        "shortDescription": {"text": f"{rule.title}."},
                        "fullDescription": {"text": f"{rule.title}."},
                        "help": {"text": f"{rule.title}. See docs/gate.md of llmtrap, rule {rule.id}."},
                        "defaultConfiguration": {"level": _LEVELS[rule.level], "enabled": rule.level != "off"},
                        "properties": {"tags": ["model-weights", "llmtrap"]},
                    }
                    for rule in judgement.rules
                ],
            }
        },
        "automationDetails": {"id": "llmtrap-gate/"},
        "columnKind": "utf16CodeUnits",
        "results": [_result(finding, judgement) for finding in listed[:limit]],
        "invocations": [
            {
                "executionSuccessful": judgement.outcome != "incomplete",
                "exitCode": judgement.exit_code,
                "toolExecutionNotifications": [
                    *({"level": "note", "message": {"text": printable(note)}} for note in judgement.notes),
                    *(_gap(item) for item in judgement.not_judged if item.blocking),
                ],
            }
        ],
        "properties": {
            "headline": printable(judgement.headline),
            "target": printable(judgement.target.name, NAME_LENGTH),
            "base": None if judgement.base is None else printable(judgement.base.name, NAME_LENGTH),
            "expectedFalseAlarms": judgement.chance.expected,
            "resultsLeftOut": max(0, len(listed) - limit),
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False) + "\n"


def _result(finding: Finding, judgement: Judgement) -> dict[str, Any]:
    rules = [rule.id for rule in judgement.rules]
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(policy_path(judgement), safe="/")},
            "region": {"startLine": line_of(judgement, finding.rule)},
        }
    }
    if finding.id is not None:
        location["logicalLocations"] = [
            {
                "name": printable(finding.id, NAME_LENGTH),
                "fullyQualifiedName": printable(finding.tensor or finding.id, NAME_LENGTH),
                "kind": "resource",
            }
        ]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rules.index(finding.rule),
        "level": _LEVELS[finding.level],
        "message": {"text": sentence(finding)},
        "locations": [location],
        "partialFingerprints": {"llmtrapFinding/v1": finding.fingerprint},
    }
    if finding.ignored is not None:
        result["suppressions"] = [{"kind": "external", "justification": printable(finding.ignored, 500)}]
    return result


def _gap(item: NotJudged) -> dict[str, Any]:
    text = f"{item.rule} {item.name}: not judged in {gap_words(item)}"
    return {"level": "error" if item.blocks else "note", "message": {"text": text}}


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))
