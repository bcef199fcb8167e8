"""How well fetching and computing overlap on a link of limited speed, and what memory that takes.

    python -m benchmarks.hub_link [--megabytes 400] [--speed 50]

A hub on loopback, in a process of its own, serves one file; each case reads it through the real client in slices of
the size of one expert's `gate_up` in GPT-OSS, in a fresh process, and computes on each slice (here: sleeps).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection

import numpy as np

SLICE = 8_812_800
REPO, FILE = "org/link", "model.safetensors"


def main() -> None:
    """Measure nothing to compute, as much as the link takes, and twice as much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_link", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="size of the file")
    parser.add_argument("--speed", type=float, default=50.0, help="of the link, in MB/s")
    parser.add_argument("--read", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read is not None:
        print(json.dumps(read_all(chosen.read)))
        return
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, chosen.megabytes * 1_000_000, chosen.speed * 1e6), daemon=True
    )
    server.start()
    endpoint = ours.recv()
    link = chosen.megabytes / chosen.speed
    print(f"{chosen.megabytes} MB at {chosen.speed:g} MB/s: the link alone needs {link:.1f} s")
    for share in (0.0, 1.0, 2.0):
        with tempfile.TemporaryDirectory() as home:
            case = [sys.executable, "-m", "benchmarks.hub_link", "--read", f"{share * link}"]
            environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": home}
            done = json.loads(subprocess.run(case, env=environment, capture_output=True, check=True, text=True).stdout)
        print(
            "computing {computing:.1f} s: total {total:.1f} s, waited {waited:.1f} s, peak {peak:.0f} MB "
            "({before:.0f} MB before the first byte)".format(**done)
        )
    server.terminate()


def serve(ready: Connection, size: int, speed: float) -> None:
    """Serve one file of random bytes until this process is ended."""
    from tests.support.hub import LoopbackHub  # noqa: PLC0415 - of the tests, which an installed package has not

    hub = LoopbackHub()
    hub.add(REPO, {FILE: np.random.default_rng(0).bytes(size)})
    hub.bandwidth = speed
    ready.send(hub.endpoint)
    while True:
        time.sleep(3600)


def read_all(computing: float) -> dict[str, float]:
    """Read the file slice by slice, two slices ahead as a worker does; seconds and megabytes."""
    from llmtrap.checkpoint.sources.base import ByteRange  # noqa: PLC0415
    from llmtrap.checkpoint.sources.hub import HubSource  # noqa: PLC0415
    from llmtrap.systems.process import peak_rss_bytes  # noqa: PLC0415 - only the reading process needs them

    with HubSource.from_target(REPO) as source:
        size = source.files()[0].size
        spans = [ByteRange(FILE, start, min(start + SLICE, size)) for start in range(0, size, SLICE)]
        before, began, spent = peak_rss_bytes(), time.perf_counter(), 0.0
        for position, span in enumerate(spans):
            source.prefetch(spans[position : position + 3])
            with source.open(span):
                started = time.perf_counter()
                time.sleep(computing / len(spans))
                spent += time.perf_counter() - started
        total = time.perf_counter() - began
        return {
            "computing": spent, "total": total, "waited": source.waited,
            "peak": peak_rss_bytes() / 1e6, "before": before / 1e6,
        }  # fmt: skip


if __name__ == "__main__":
    main()
