"""How fast the gate is where little has changed: its comparison beside `cmp`, and a whole gate beside its parts.

    python -m studies.gate.reading [ROUNDS]

Everything is taken in turns, and medians are shown: on the clock, and of the processor's time, which depends less on
what else the machine does. It needs the real weights that the tests use.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import edits, smollm2
from tests.support.real_weights import checkpoint

from llmtrap.checkpoint import open_checkpoint
from llmtrap.gate.unchanged import unchanged_matrices

CHANGED = ("model.layers.3.self_attn.k_proj.weight", "model.layers.20.mlp.up_proj.weight")


@dataclass(frozen=True)
class Taken:
    """Medians of one way, in seconds: on the clock, and of the processor, child processes included."""

    passed: float
    worked: float


def in_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, Taken]:
    """What each way takes; each round takes every way once."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            before = os.times()
            way()
            after = os.times()
            seconds[name].append((after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4])))
    return {name: Taken(*(statistics.median(column) for column in zip(*taken, strict=True)))
            for name, taken in seconds.items()}  # fmt: skip


def byte_by_byte(one: Path, other: Path) -> Callable[[], None]:
    """`cmp` on every file of two folders; a difference ends it, as in the gate."""
    shards = sorted(path.name for path in one.glob("*.safetensors"))

    def way() -> None:
        for name in shards:
            subprocess.run(["cmp", "-s", str(one / name), str(other / name)], check=True)

    return way


def comparison(one: Path, other: Path, threads: int) -> Callable[[], None]:
    """The gate's comparison of two equal folders, in this process."""
    mine, theirs = open_checkpoint(str(one)), open_checkpoint(str(other))
    pairs = list(zip(mine.matrices, theirs.matrices, strict=True))

    def way() -> None:
        if len(unchanged_matrices(pairs, mine.source, theirs.source, threads)) != len(pairs):
            raise SystemExit("the copies differ")

    return way


def whole_gate(target: Path, base: Path, words: str) -> Callable[[], None]:
    """The command, start-up included, with one worker and no journal to lean on; `words` must be in what it says."""
    start = "from llmtrap.cli import main; main()"
    options = ["--workers", "1", "--fresh", "--journal", str(target.parent / "journal")]
    command = [sys.executable, "-c", start, "gate", str(target), "--baseline", str(base), *options]

    def way() -> None:
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if words not in said:
            raise SystemExit(f"expected {words!r}:\n{said}")

    return way


def own_copy(folder: Path, to: Path) -> Path:
    """A copy that shares no bytes with the original, in the page cache or on disk."""
    edits.copy_of(folder, to)
    for path in to.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return to


def of_two(folder: Path, to: Path) -> Path:
    """A checkpoint of the two changed matrices alone."""
    tensors = smollm2.read_checkpoint(folder)
    to.mkdir()
    smollm2.write_checkpoint(to, {name: tensors[name] for name in CHANGED}, smollm2.CONFIG)
    return to


def main() -> None:
    """Compare SmolLM2 with a copy of itself, then gate a copy in which two matrices of 211 are changed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    base = checkpoint("smollm2_bf16")
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    print(f"{size / 1e6:.0f} MB on each side, in the page cache; medians of {rounds}, taken in turns\n")
    with tempfile.TemporaryDirectory() as scratch:
        copy = own_copy(base, Path(scratch) / "copy")
        taken = in_turns(
            {
                "`cmp`": byte_by_byte(copy, base),
                "the gate's comparison, one thread": comparison(copy, base, 1),
                "the gate's comparison, two threads": comparison(copy, base, 2),
            },
            rounds,
        )
        print("| | on the clock | of the processor | times `cmp`'s speed, on the clock and by the processor |")
        print("|---|---|---|---|")
        cmp = taken["`cmp`"]
        for what, it in taken.items():
            speeds = f"{cmp.passed / it.passed:.2f}, {cmp.worked / it.worked:.2f}"
            print(f"| {what} | {it.passed:.2f} s | {it.worked:.2f} s | {speeds} |", flush=True)
        plain = of_two(base, Path(scratch) / "two-base")
        for number, name in enumerate(CHANGED):
            edits.edit(copy, name, edits.small_noise(0.02, number))
        changed = of_two(copy, Path(scratch) / "two")
        parts = in_turns(
            {
                "the whole gate, 2 of 211 matrices changed": whole_gate(copy, base, "2 judged, 209 unchanged"),
                "start-up and the two alone": whole_gate(changed, plain, "2 judged, 0 unchanged"),
                "`cmp`": byte_by_byte(own_copy(base, Path(scratch) / "equal"), base),
            },
            rounds,
        )
        whole, two, reading = parts.values()
        allowed = Taken(two.passed + 2 * reading.passed, two.worked + 2 * reading.worked)
        parts["allowed: start-up, the two, and reading at half of `cmp`'s speed"] = allowed
        print("\n| | on the clock | of the processor |\n|---|---|---|")
        for what, it in parts.items():
            print(f"| {what} | {it.passed:.2f} s | {it.worked:.2f} s |")
        shares = (
            f"{whole.passed / allowed.passed:.2f} on the clock, {whole.worked / allowed.worked:.2f} by the processor"
        )
        print(f"\nof what is allowed the gate takes {shares}")


if __name__ == "__main__":
    main()
