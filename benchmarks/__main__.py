"""Run the comparisons, print a table, write a file of results.

    python -m benchmarks [--rounds 5] [--checkpoint DIR] [--skip weightwatcher] [--out benchmarks/results]

Takes about half an hour and 4 GB of the temporary folder; without `memory`, which audits a layer of GPT-OSS-20B with
its embeddings, a third of both. Absolute times mean little on a shared machine: read the ratios. Everything runs with
one BLAS thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import comparisons
from benchmarks.catalogue import measure_listing
from benchmarks.formats import details_table, formats_document, measure_formats
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory
from benchmarks.timing import Ratio

PARTS = ("floor", "weightwatcher", "workers", "reading", "formats", "memory")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure llmtrap's speed and memory.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender; medians are taken of them")
    parser.add_argument("--skip", choices=PARTS, action="append", default=[], help="leave a comparison out; repeatable")
    parser.add_argument("--checkpoint", type=Path, help="measure memory on this checkpoint instead of a made one")
    parser.add_argument("--workers", type=int, default=1, help="workers of the audit whose memory is measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args(arguments)
    if os.environ.pop("OPENBLAS_CORETYPE", None):
        # It picks a kernel when NumPy loads, and may pick a slow one: start again without it.
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *(arguments or sys.argv[1:])])  # noqa: S606
    os.environ.update(ONE_THREAD)
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="llmtrap-bench-") as scratch:
        ratios, memory = measure(Path(scratch), options)
        speeds = [] if "formats" in options.skip else measure_formats(options.rounds)
        listing = None if "formats" in options.skip else measure_listing(Path(scratch))
        document = results_document(ratios, memory, options.rounds) | {
            "formats": formats_document(speeds),
            "listing": asdict(listing) if listing else None,
        }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    show(ratios, memory, document)
    print("\n".join(details_table(speeds)))
    if listing:
        print(listing)
    print(f"written to {path}")
    return 0


def measure(scratch: Path, options: argparse.Namespace) -> tuple[list[Ratio], PeakMemory | None]:
    """Make the inputs and run every comparison that is not left out."""
    experts, dense = comparisons.make_inputs(scratch)
    ratios: list[Ratio] = []
    for subject in comparisons.subjects(experts):
        if "floor" not in options.skip:
            ratios.append(comparisons.against_floor(subject, options.rounds))
        if "weightwatcher" not in options.skip:
            ratios.append(comparisons.against_weightwatcher(subject, options.rounds))
    if "workers" not in options.skip:
        ratios += [comparisons.command_against_floor(dense, scratch, workers, options.rounds) for workers in (1, 2)]
    if "reading" not in options.skip:
        ratios.append(comparisons.certify_against_reading(dense, options.rounds))
    memory = None
    if "memory" not in options.skip:
        checkpoint = options.checkpoint or comparisons.make_one_layer(scratch)
        memory = comparisons.audit_afresh(checkpoint, scratch, options.workers)
    return ratios, memory


def results_document(ratios: list[Ratio], memory: PeakMemory | None, rounds: int) -> dict[str, Any]:
    """What is written: every single time, so that others can judge the spread."""
    return {
        "schema": "llmtrap.benchmark/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "machine": describe_machine(),
        "ratios": [asdict(ratio) | {"ratio": ratio.ratio, "spread": ratio.spread} for ratio in ratios],
        "memory": asdict(memory) if memory else None,
    }


def show(ratios: list[Ratio], memory: PeakMemory | None, document: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("measured", "against", "ours s", "theirs s", "ratio", "rounds from – to")
    for ratio in ratios:
        ours, theirs = statistics.median(ratio.ours), statistics.median(ratio.theirs)
        low, high = ratio.spread
        numbers = (f"{ours:.2f}", f"{theirs:.2f}", f"{ratio.ratio:.3g}", f"{low:.3g} – {high:.3g}")
        table.add_row(ratio.name, ratio.theirs_name, *numbers)
    console = Console()
    console.print(table)
    if memory:
        console.print(f"audit in {memory.seconds:.0f} s with {memory.processes} processes:")
        console.print(
            f"peak RssAnon {memory.anonymous / 1e6:.0f} MB, VmHWM {memory.high_water / 1e6:.0f} MB, summed over them"
        )
    machine = document["machine"]
    kernels = sorted({str(library["architecture"]) for library in machine["blas"] if library["architecture"]})
    load = machine["load_average"][0]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, load {load:.1f}, BLAS kernels: {', '.join(kernels)}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
