"""A whole checkpoint audited in slices, with in between the floor of what α costs on some of the same matrices.

    python -m benchmarks.real_size DIR [--workers 2] [--slices 12] [--out benchmarks/results] [--json reports/X.json]

The command itself does the work, `llmtrap audit DIR --part I/N`, so its start, its journal and its memory count.
Before the first slice and after each, as many processes as it has workers form WᵀW and its eigenvalues in float32 of
matrices of every shape, so that audit and floor meet the same machine. One slice is the audit in one piece. At the end:
the report, the audit without α, the planted traps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory, run_measured
from llmtrap.checkpoint import WeightMatrix, open_checkpoint
from llmtrap.demo.manifest import MANIFEST_NAME, DemoManifest
from llmtrap.report.document import Report
from llmtrap.report.read import read_report

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
RESULTS = Path(__file__).parent / "results"
# Of each shape, so many matrices a worker between two slices; the few tall embeddings once in all.
COMMON, RARE = 2, 1
BLOCK_ENTRIES = 1 << 22

Shape = tuple[int, int]


@dataclass
class Floors:
    """Seconds of Gram matrix and eigenvalues by shape, from all rounds."""

    seconds: dict[Shape, list[float]] = field(default_factory=dict)

    def add(self, measured: Sequence[tuple[Shape, float]]) -> None:
        """Take in what one worker measured."""
        for shape, seconds in measured:
            self.seconds.setdefault(shape, []).append(seconds)

    def total(self, counts: Counter[Shape]) -> float:
        """Seconds of one core for so many matrices of each shape: counts times medians."""
        return sum(count * statistics.median(self.seconds[shape]) for shape, count in counts.items())


def floor_of(folder: str, ids: Sequence[str]) -> list[tuple[Shape, float]]:
    """Time G = WᵀW and eigvalsh(G, driver='ev') in float32 on these matrices; decoding them is not counted."""
    checkpoint = open_checkpoint(folder)
    wanted = {matrix.id: matrix for matrix in checkpoint.matrices if matrix.id in ids}
    measured = []
    for name in ids:
        matrix = wanted[name]
        n, m = max(matrix.shape), min(matrix.shape)
        gram: NDArray[np.floating] = np.zeros((m, m), dtype=np.float32)
        spent = 0.0
        held = n * m <= 50_000_000
        blocks = [matrix.read(checkpoint.source)] if held else matrix.blocks(checkpoint.source, BLOCK_ENTRIES)
        for block in blocks:
            tall = block.T if matrix.shape[0] < matrix.shape[1] else block
            began = time.perf_counter()
            gram = tall.T @ tall if held else gram + tall.T @ tall
            spent += time.perf_counter() - began
        began = time.perf_counter()
        scipy.linalg.eigvalsh(gram, driver="ev", check_finite=False, overwrite_a=True)
        measured.append(((n, m), spent + time.perf_counter() - began))
    checkpoint.source.close()
    return measured


def sample(matrices: Sequence[WeightMatrix], rng: np.random.Generator, *, tall: bool) -> list[str]:
    """Matrices for one worker's round: some of every shape; the tallest only where asked for."""
    by_shape: dict[Shape, list[str]] = {}
    for matrix in matrices:
        by_shape.setdefault((max(matrix.shape), min(matrix.shape)), []).append(matrix.id)
    chosen: list[str] = []
    for (n, _), ids in by_shape.items():
        if n > 50_000 and not tall:
            continue
        wanted = COMMON if len(ids) > 100 else RARE
        chosen += [str(name) for name in rng.choice(ids, min(wanted, len(ids)), replace=False)]
    return chosen


def audit(folder: Path, journal: Path, workers: int, *options: str) -> PeakMemory:
    """Run the command to its end."""
    program = str(Path(sys.executable).with_name("llmtrap"))
    common = ["--workers", str(workers), "--journal", str(journal), "--quiet"]
    return run_measured([program, "audit", str(folder), *common, *options])


def against_manifest(report: Report, manifest: DemoManifest) -> dict[str, Any]:
    """Which planted traps were found with their cause, and which matrices show a trap that was not planted."""
    planted = {trap.matrix: trap for trap in manifest.traps}
    found = {matrix.id: matrix.traps for matrix in report.matrices if matrix.traps and matrix.traps.count}
    right = []
    for name, trap in planted.items():
        causes = [one.cause for one in found[name].found] if name in found else []
        place = (trap.row, trap.column)
        if any(c.kind == trap.cause and (c.kind != "entry" or (c.row, c.column) == place) for c in causes):
            right.append(name)
    return {
        "planted": len(planted),
        "found with cause": len(right),
        "missed or misnamed": sorted(set(planted) - set(right)),
        "not planted": {name: traps.found[0].z for name, traps in found.items() if name not in planted},
    }


def main(arguments: list[str] | None = None) -> int:
    """Audit, measure the floor in between, compare, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_size", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--journal", type=Path, help="keep it here, to carry on; a new one by default")
    parser.add_argument("--json", type=Path, help="where the report goes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args(arguments)
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="llmtrap-bench-") as scratch:
        document = measure(options, Path(scratch))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"real-size-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({key: document[key] for key in ("audit", "floor", "ratio", "no_alpha", "traps")}, indent=2))
    print(f"written to {path}")
    return 0


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything that is written."""
    folder, workers = options.checkpoint, options.workers
    journal = options.journal or scratch / "journal"
    checkpoint = open_checkpoint(str(folder))
    matrices, size = checkpoint.matrices, sum(file.size for file in checkpoint.source.files())
    counts = Counter((max(matrix.shape), min(matrix.shape)) for matrix in matrices)
    floors, slices, rng = Floors(), [], np.random.default_rng(0)
    context = multiprocessing.get_context("spawn")
    path = options.json or scratch / "report.json"
    # A part of an audit writes no report: those of several are joined at the end.
    written = ("--json", str(path))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for number in range(options.slices + 1):
            if number:
                part = written if options.slices == 1 else ("--part", f"{number}/{options.slices}")
                slices.append(audit(folder, journal, workers, *part))
                print(f"slice {number}: {slices[-1].seconds:.0f} s", flush=True)
            tall = number == (options.slices + 1) // 2
            lists = [sample(matrices, rng, tall=tall) for _ in range(workers)]
            for measured in pool.map(floor_of, [str(folder)] * workers, lists):
                floors.add(measured)
    joined = audit(folder, journal, workers, *written).seconds if options.slices > 1 else 0.0
    quick = audit(folder, scratch / "quick", workers, "--no-alpha", "--json", str(scratch / "quick.json"))
    seconds = sum(one.seconds for one in slices) + joined
    floor = floors.total(counts) / workers
    traps = None
    if (folder / MANIFEST_NAME).exists():
        traps = against_manifest(read_report(path), DemoManifest.read(folder))
    return {
        "schema": "llmtrap.benchmark.real-size/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": {"name": folder.name, "bytes": size, "matrices": len(matrices)},
        "machine": describe_machine(),
        "workers": workers,
        "audit": {
            "seconds": seconds,
            "slices": [one.seconds for one in slices],
            "peak_anonymous_bytes": max(one.anonymous for one in slices),
            "high_water_bytes": max(one.high_water for one in slices),
            "bytes_per_second": size / seconds,
            "matrices_per_second": len(matrices) / seconds,
        },
        "floor": {
            "seconds": floor,
            "by_shape": [
                {"shape": shape, "matrices": counts[shape], "seconds": seconds}
                for shape, seconds in sorted(floors.seconds.items())
            ],
        },
        "ratio": seconds / floor,
        "no_alpha": asdict(quick) | {"share_of_audit": quick.seconds / seconds},
        "traps": traps,
    }


if __name__ == "__main__":
    raise SystemExit(main())
