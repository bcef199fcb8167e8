"""How fast unchanged tensors are skipped: the gate's comparison beside `cmp` on the same files, taken in turns.

python -m studies.gate.reading [TIMES]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import edits
from tests.support.real_weights import checkpoint

from llmtrap.checkpoint import open_checkpoint
from llmtrap.gate.unchanged import unchanged_matrices


def main() -> None:
    """Compare SmolLM2 with a copy of itself, both ways; print the best of each and their ratio."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    base = checkpoint("smollm2_bf16")
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    size = sum((base / name).stat().st_size for name in shards)
    best = {"cmp": float("inf"), "gate, 1 thread": float("inf"), "gate, 2 threads": float("inf")}
    with tempfile.TemporaryDirectory() as scratch:
        copy = edits.copy_of(base, Path(scratch) / "copy")
        for path in copy.iterdir():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        one, other = open_checkpoint(str(copy)), open_checkpoint(str(base))
        pairs = list(zip(one.matrices, other.matrices, strict=True))
        for _ in range(times):
            start = time.perf_counter()
            for name in shards:
                subprocess.run(["cmp", str(copy / name), str(base / name)], check=True)
            best["cmp"] = min(best["cmp"], time.perf_counter() - start)
            for threads, what in ((1, "gate, 1 thread"), (2, "gate, 2 threads")):
                start = time.perf_counter()
                same = unchanged_matrices(pairs, one.source, other.source, threads)
                best[what] = min(best[what], time.perf_counter() - start)
                if len(same) != len(pairs):
                    raise SystemExit("the copies differ")
    print(f"{size / 1e6:.0f} MB on each side, in the page cache; best of {times}")
    for what, seconds in best.items():
        print(f"| {what} | {seconds:.3f} s | {size / seconds / 1e9:.2f} GB/s | {best['cmp'] / seconds:.2f} |")


if __name__ == "__main__":
    main()
