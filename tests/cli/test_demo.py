"""What the demo's audit says of the traps that were planted in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmtrap.cli.demo import planted_found
from llmtrap.demo.manifest import DemoManifest
from llmtrap.report.read import read_report


def test_it_counts_the_planted_traps_that_were_found(invoke: Any, tmp_path: Path) -> None:
    shown = invoke("audit", "--demo", "--no-alpha", "--workers", "1", "--json", tmp_path / "r.json")
    assert shown.exit_code == 0, shown.output
    assert "8 of 8 planted traps found" in shown.stderr
    folder, report = Path("llmtrap-demo/gpt-oss"), read_report(tmp_path / "r.json")

    # The count is of what stands in the report: another place, another cause or a matrix that is missing is none.
    manifest = DemoManifest.read(folder)
    entry = next(trap for trap in manifest.traps if trap.cause == "entry")
    shift = next(trap for trap in manifest.traps if trap.cause == "mean_shift")
    moved, other = replace(entry, row=(entry.row or 0) + 1), replace(shift, cause="heavy_tail")
    rest = [trap for trap in manifest.traps if trap not in (entry, shift)]
    replace(manifest, traps=(moved, other, *rest)).write(folder)
    assert planted_found(folder, report) == "6 of 8 planted traps found"
    without = report.model_copy(update={"matrices": tuple(m for m in report.matrices if m.id != rest[0].matrix)})
    assert planted_found(folder, without) == "5 of 8 planted traps found"


def test_nothing_is_said_where_nothing_was_planted(invoke: Any, tmp_path: Path) -> None:
    shown = invoke("audit", "--demo", "grokking", "--no-alpha", "--workers", "1", "--json", tmp_path / "r.json")
    assert shown.exit_code == 0, shown.output
    assert "planted" not in shown.output
