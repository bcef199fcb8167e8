"""The papers' own numbers for these tasks (`paper.toml`) beside ours."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Sequence

from llmtrap.calibrate.document import PaperRow, PhaseRow
from llmtrap.calibrate.phases import PHASES


def beside_the_paper(task: str, rows: Sequence[PhaseRow]) -> tuple[PaperRow, ...]:
    """Each published number beside the mean ± deviation of the arm that it belongs to: of sums, the first."""
    text = importlib.resources.files("llmtrap.calibrate").joinpath("paper.toml").read_text(encoding="utf-8")
    here = {(row.arm, row.measure): row.cells for row in rows}
    sums = task == "modular-addition"
    usual = rows[0].arm if sums and rows else "wd0"
    return tuple(
        PaperRow(source=table["source"], quantity=quantity, phase=phase, paper=paper, here=_words(cells.get(phase)))
        for table in tomllib.loads(text).get("sums" if sums else "images" if task in ("mnist", "digits") else task, ())
        for quantity, measure, *values in table["rows"]
        if (cells := here.get((table.get("arm", usual), measure))) is not None
        for phase, paper in zip(PHASES, values, strict=True)
    )


def _words(cell: tuple[float, float, int] | None) -> str:
    if cell is None:
        return "not reached"
    mean, spread, runs = cell
    return f"{mean:.3g} ± {spread:.2g} ({runs} runs)" if runs > 1 else f"{mean:.3g} (1 run)"
