"""What one CUDA device does with matrices of GPT-OSS-20B's kinds, in less than five minutes.

    python -m benchmarks.gpu [--out benchmarks/results] [--rounds 3] [--skip tests] [--skip audits]

First tests/gpu. Then, with each of CuPy and PyTorch that is installed: every step of an MXFP4 expert, a BF16 projection
and an embedding; eigenvalues of Gram matrices one by one and in stacks, beside the cores of this machine and PyTorch's
singular values, which are what WeightWatcher asks for on a GPU; whole audits of one layer on the device and the cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu_audits import measure_audits
from benchmarks.gpu_layer import write_layer
from benchmarks.gpu_solvers import measure_solvers
from benchmarks.gpu_steps import measure_steps
from benchmarks.machine import describe_machine
from llmtrap.spectra.backends import cuda_device_count

PARTS = ("tests", "steps", "solvers", "audits")
LIBRARIES = ("torch", "cupy")
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON; 1 where a test of tests/gpu failed, 2 without a CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each step; medians are taken of them")
    parser.add_argument("--skip", choices=PARTS, action="append", default=[], help="leave a part out; repeatable")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args(arguments)
    if cuda_device_count() == 0:
        print("no CUDA device is found here: see llmtrap doctor", file=sys.stderr)
        return 2
    libraries = [name for name in LIBRARIES if find_spec(name) is not None]
    document: dict[str, Any] = {
        "schema": "llmtrap.benchmark.gpu/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "machine": describe_machine(),
        "device": describe_device(),
        "libraries": libraries,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"gpu-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    failed = False
    if "tests" not in options.skip:
        document["tests"] = run_tests()
        print(document["tests"]["summary"], flush=True)
        failed = document["tests"]["exit"] != 0
    with tempfile.TemporaryDirectory(prefix="llmtrap-gpu-") as scratch:
        folder = Path(scratch) / "one-layer"
        write_layer(folder)
        parts: dict[str, Callable[[], Iterator[Any]]] = {
            "steps": lambda: measure_steps(folder, libraries, options.rounds),
            "solvers": lambda: measure_solvers(libraries, options.rounds),
            "audits": lambda: measure_audits(folder, libraries),
        }
        for name, measure in parts.items():
            if name not in options.skip:
                began = time.perf_counter()
                document[name] = [asdict(row) for row in measure()]
                show(f"{name}, {time.perf_counter() - began:.0f} s", document[name])
                path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{document['device']['name']}; written to {path}")
    return int(failed)


def run_tests() -> dict[str, Any]:
    """Run tests/gpu in a process of its own: what it makes of the device is no part of what comes after."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/gpu"]
    root = Path(__file__).parents[1]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    lines = ran.stdout.strip().splitlines() or ran.stderr.strip().splitlines() or ["no output"]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    return {"exit": ran.returncode, "summary": f"tests/gpu: {lines[-1]}", "failures": failures[:40]}


def describe_device() -> dict[str, Any]:
    """The device and its driver, as nvidia-smi tells them."""
    asked = "name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "-i", "0"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return {"name": "unknown", "reason": str(error)}
    name, driver, memory = (part.strip() for part in found.split(","))
    return {"name": name, "driver": driver, "memory": memory}


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """One part as a table."""
    if not rows:
        return
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
