"""Make the shipped reference, leave each model out of it in turn, and damage healthy ones.

    python -m studies.reference            # writes published.json, results/*.json and docs/reference.md
    python -m studies.reference --table    # the shipped table alone
    python -m studies.reference --again    # with every checkpoint audited anew
    python -m studies.reference --seeds    # the counts of twelve seeds alone; of some checkpoints, named after it
    python -m studies.reference --held-out # the limits set without each family alone, from the table that ships

It needs the real weights that the tests use, and more: 1.4 GB of packages, downloaded once.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmtrap.report.document import Report
from llmtrap.report.judging import judged
from llmtrap.report.rarity.reference import Reference, shipped_reference
from studies.reference import changes
from studies.reference.audits import audit, reference, reports
from studies.reference.held_out import held_out
from studies.reference.models import SOURCES, Source
from studies.reference.page import write_page
from studies.reference.seeds import counts_by_seed

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "src" / "llmtrap" / "report" / "rarity" / "published.json"
RESULTS = HERE / "results"
DAMAGED = ("minilm-l6", "smollm2-135m-instruct", "whisper-tiny.en")

Row = dict[str, str | int | float]


def main(arguments: Sequence[str]) -> None:
    """Everything, or the table alone."""
    if "--seeds" in arguments:
        _seeds([name for name in arguments if not name.startswith("--")])
        write_page()
        return
    if "--held-out" in arguments:
        _write("held_out", held_out(shipped_reference()))
        write_page()
        return
    if "--again" in arguments:
        shutil.rmtree(reports(), ignore_errors=True)
    SHIPPED.write_text(reference().model_dump_json(by_alias=True) + "\n", encoding="utf-8")
    if "--table" in arguments:
        return
    _write("models", map(_described, SOURCES))
    _write("leave_one_out", map(_left_out, SOURCES))
    _write("damaged", _damaged())
    _write("held_out", held_out(reference()))
    _seeds([])
    write_page()


def _described(source: Source) -> Row:
    report = audit(source)
    counts = report.coverage.counts
    return {
        "model": source.name,
        "family": report.target.family,
        "parameters": counts.measured.parameters if counts else 0,
        "licence": source.licence,
        "packages": ", ".join(wheel.requirement for wheel in source.wheels[:1])
        + (f" and {len(source.wheels) - 1} more parts" if len(source.wheels) > 1 else ""),
        "source": source.source,
        "held": "in the table" if source.shipped else "held out",
    }


def _left_out(source: Source) -> Row:
    return _row(source.name, "as published", audit(source), _without(source))


def _damaged() -> Iterable[Row]:
    for source in (source for source in SOURCES if source.name in DAMAGED):
        others = _without(source)
        for kind in (changes.corrupted, changes.flipped, changes.random_layer):
            for changed in kind(source):
                yield _row(source.name, changed.change, changed.report, others)
    for phase, report in changes.grokking().items():
        yield _row("grokking network", phase, report, reference())


def _seeds(names: Sequence[str]) -> None:
    """Count over the seeds, of all checkpoints or of those named; what was counted of others before is kept."""
    kept = RESULTS / "seeds.json"
    rows = (
        {row["model"]: row for row in json.loads(kept.read_text(encoding="utf-8"))} if names and kept.exists() else {}
    )
    for source in SOURCES:
        if names and source.name not in names:
            continue
        trapped, uncertain = zip(*counts_by_seed(source), strict=True)
        rows[source.name] = {"model": source.name, "with_traps": trapped, "undecided": uncertain}
        print(json.dumps(rows[source.name]), flush=True)
        _write("seeds", rows.values())


def _without(source: Source) -> Reference:
    return reference().without(source.lineage)


def _row(name: str, change: str, report: Report, others: Reference) -> Row:
    held = judged(report, others)
    grave = [finding for finding in held.findings if finding.weight != "usual"]
    row: Row = {
        "model": name,
        "change": change,
        "level": held.summary.level,
        "with_traps": held.summary.with_traps,
        "matrices": held.summary.matrices,
        "findings": len(held.findings),
        "why": " ".join(finding.text for finding in grave),
    }
    print(json.dumps(row, ensure_ascii=False), flush=True)
    return row


def _write(name: str, rows: Iterable[Mapping[str, object]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(list(rows), indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
