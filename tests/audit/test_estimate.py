"""How long a run is said to take, against reports of runs on the machine that the rates are of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmtrap.audit import AuditSettings, estimate
from llmtrap.audit.plan import core_seconds

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.mark.parametrize("name", ["demo", "minilm-l6", "smollm2-135m-instruct", "gpt-oss-20b-shaped"])
def test_what_is_expected_is_within_a_factor_of_two_of_what_it_took(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "slowness", lambda: 1.0)
    report = json.loads((REPORTS / f"{name}.json").read_text())
    work = sum(core_seconds(tuple(matrix["shape"]), AuditSettings()) for matrix in report["matrices"])

    assert 0.5 < estimate.expected_seconds(work, workers=2) / report["summary"]["seconds"] < 2


def test_the_pace_is_taken_once_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = estimate.slowness()
    assert first == estimate.slowness() > 0
    usual = estimate.expected_seconds(100.0, 4)
    monkeypatch.setattr(estimate, "slowness", lambda: 2 * first)
    assert estimate.expected_seconds(100.0, 4) == pytest.approx(2 * usual)
