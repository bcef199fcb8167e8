"""`make fuzz`: every reader fuzzed from several seeds, over a million inputs in all, counted by the fuzzer itself.

Each run starts from the same few sound documents and keeps what it learns in a folder that is dropped afterwards. An
input that crashes, hangs or takes too much memory ends its run, and stays in `build/fuzz/` with the way to repeat it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAN = {
    "header": 150_000, "index": 80_000, "config": 80_000, "adapter": 40_000, "pickle": 60_000, "gguf": 60_000,
    "report": 60_000, "policy": 110_000, "journal": 110_000, "hub": 60_000,
}  # fmt: skip
SEEDS = (1, 2, 3)
FINDINGS = Path("build/fuzz")


def main() -> int:
    """Run them one after the other, or those named; the exit code is the number of runs that found something."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # noqa: S108 - a random name below it: a file written anew a million times is most of the time on a disk
    with tempfile.TemporaryDirectory(prefix="llmtrap-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        return _run(folder)


def _run(folder: str) -> int:
    counted = found = 0
    for target, runs in ((name, PLAN[name]) for name in sys.argv[1:] or PLAN):
        for seed in SEEDS:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "tests.hostile.fuzz_readers", target, f"-runs={runs}", f"-seed={seed}",
                 "-max_len=2048", f"-artifact_prefix={FINDINGS}/{target}-{seed}-"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                env=os.environ | {"TMPDIR": folder},
            )  # fmt: skip
            units, memory = _stat(done.stdout, "number_of_executed_units"), _stat(done.stdout, "peak_rss_mb")
            counted += units
            seconds = time.perf_counter() - start
            slowest = _stat(done.stdout, "slowest_unit_time_sec")
            print(
                f"{target} seed {seed}: {units:,} inputs in {seconds:.0f} s, the slowest {slowest} s, "
                f"at most {memory} MB", flush=True,
            )  # fmt: skip
            if done.returncode:
                found += 1
                print(done.stdout[-4000:], flush=True)
    print(f"{counted:,} inputs, {found} runs with a finding", flush=True)
    return found


def _stat(output: str, name: str) -> int:
    """A number of libFuzzer's closing statistics; 0 where it did not come to print them."""
    found = re.search(rf"stat::{name}:\s+(\d+)", output)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
