"""The study of the reference: what it says of the limits follows from the table that ships."""

from __future__ import annotations

import json

from studies.reference.__main__ import RESULTS
from studies.reference.held_out import IN_USE, held_out
from studies.reference.page import PAGE, rendered

from llmtrap.report.rarity.reference import shipped_reference


def test_the_limits_that_are_told_are_those_of_the_table_that_ships() -> None:
    rows = held_out(shipped_reference())
    assert json.loads((RESULTS / "held_out.json").read_text(encoding="utf-8")) == rows
    assert len({row["family"] for row in rows}) >= 5
    # No model that ships goes beyond a limit in use, whichever family is left out of the reference.
    assert all(float(row["reached"] or 0.0) <= IN_USE[str(row["rule"])] for row in rows)


def test_the_page_is_what_the_results_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered()
