"""The page's tables, whole, on a committed report."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.page import tables
from llmtrap.calibrate.page.figures import all_figures

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture(scope="module")
def facts() -> CalibrationReport:
    text = (REPORTS / "calibrate-composition-quick.json").read_text(encoding="utf-8")
    return CalibrationReport.model_validate_json(text)


def test_rules_and_runs(facts: CalibrationReport) -> None:
    rules = tables.acceptance(facts)
    assert rules.title == "2 of 2 rules met, over all runs"
    assert rules.rows == (
        ("rate-decay", "test reaches 0.90", "✓ 1 of 1", "0: 0.994 at step 5,750"),
        ("rate-decay", "ends within 0.06 of its peak", "✓ 1 of 1", "0: 0.994 → 0.994, 0.000"),
    )
    runs = tables.runs(facts)
    assert runs.rows == (
        ("rate-decay", "0", "6,000", "5,750", "0.994", "0.994", "1.000", "59", "1 min 41 s", "-"),
    )  # fmt: skip
    assert len(runs.heads) == len(runs.rows[0])


def test_a_rule_that_a_run_does_not_meet_is_marked(facts: CalibrationReport) -> None:
    failed = facts.checks[0].model_copy(update={"seed": 1, "found": "0.5", "passed": False})
    rows = tables.acceptance(facts.model_copy(update={"checks": (*facts.checks, failed)})).rows
    assert rows[0][2:] == ("✗ 1 of 2", "0: 0.994 at step 5,750; 1: 0.5 (not met)")


@pytest.mark.parametrize("name", ["mnist-quick", "modular-addition-quick", "mnist-paper-float32"])
def test_every_row_has_a_cell_for_each_head(name: str) -> None:
    report = CalibrationReport.model_validate_json((REPORTS / f"calibrate-{name}.json").read_text(encoding="utf-8"))
    found = [tables.separation(report), tables.onsets(report), tables.paper(report)]
    found += [*tables.rates(report), *tables.phases(report)]
    found += [table for study in report.studies for table in tables.ablations(study)]
    assert all(len(row) == len(table.heads) for table in found for row in table.rows)
    shown = sum(len(table.rows) for table in tables.phases(report))
    assert shown == len(report.phases)


def test_each_quantity_of_the_curves_has_one_colour_of_its_own() -> None:
    text = (REPORTS / "calibrate-mnist-quick.json").read_text(encoding="utf-8")
    figures = {figure.name: figure for figure in all_figures(CalibrationReport.model_validate_json(text))}
    assert set(figures) == {
        "curves-0", "separation", "spectra-wd0", "images-wd0", "confusions-wd0", "spectra-wd0.1", "images-wd0.1",
        "confusions-wd0.1",
    }  # fmt: skip
    looks = {(trace["name"].split(" of ")[0], trace["line"]["color"]) for trace in figures["curves-0"].plot["data"]}
    assert len({name for name, _ in looks}) == len({colour for _, colour in looks}) == len(looks) == 9
