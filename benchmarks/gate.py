"""What the gate reads of each side, and how long it plans for a model of which nothing changed.

    python -m benchmarks.gate [LAYERS]

116 layers of 128 experts give 44,544 matrices. Seconds are those of the processor: on a shared machine the clock says
little. Read the ratios.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.audit import AuditSettings
from llmtrap.checkpoint import Checkpoint, LocalSource
from llmtrap.checkpoint.parts import open_parts
from llmtrap.checkpoint.sources import ByteRange, Bytes
from llmtrap.gate.comparing import compare_checkpoints
from llmtrap.gate.measure_sides import GateOptions
from llmtrap.gate.pairing import pair_matrices
from llmtrap.gate.unchanged import unchanged_matrices

Result = TypeVar("Result")
Tensors = dict[str, NDArray[np.float16]]


class CountingSource(LocalSource):
    """A local source that counts the bytes it gives out."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.given = 0

    def _fill(self, span: ByteRange, out: Bytes) -> None:
        self.given += span.size
        super()._fill(span, out)


def reads_of_each_side(folder: Path, *, large: bool = False) -> tuple[float, float]:
    """Bytes read of the target and of the base, over the bytes of the changed matrices.

    With `large` the matrices count as too large to keep or to hold.
    """
    rng = np.random.default_rng(0)
    was = {f"layers.{k}.mlp.up_proj.weight": rng.standard_normal((1500, 600)).astype(np.float16) for k in range(8)}
    now = {name: (t + 0.01 * rng.standard_normal(t.shape)).astype(np.float16) for name, t in was.items()}
    sides: list[Checkpoint] = []
    sources: list[CountingSource] = []
    for name, tensors in (("now", now), ("was", was)):
        sources.append(CountingSource(_written(folder / name, tensors)))
        sides.append(open_parts(sources[-1]))
        sources[-1].given = 0
    with ExitStack() as limits:
        if large:
            for limit in ("gate.kept.KEPT_BYTES", "spectra.matrix_data.HELD_ENTRIES"):
                limits.enter_context(patch(f"llmtrap.{limit}", 1))
        compare_checkpoints(sides[0], sides[1], AuditSettings(), GateOptions(workers=1))
    changed = sum(tensor.nbytes for tensor in was.values())
    return sources[0].given / changed, sources[1].given / changed


def seconds_of_planning(folder: Path, layers: int) -> dict[str, float]:
    """Processor seconds of each step for two equal models of `layers` × 128 experts × 3 matrices."""
    tensors = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight": np.full((8, 8), layer + expert, np.float16)
        for layer in range(layers)
        for expert in range(128)
        for name in ("gate", "up", "down")
    }
    paths = [_written(folder / name, tensors, num_experts=128) for name in ("one", "other")]
    sides, opening = timed(lambda: [open_parts(LocalSource(path)) for path in paths])
    pairing, pairs = timed(lambda: pair_matrices(*sides))
    found = [(pair.now, pair.base) for pair in pairing.pairs]
    _, comparing = timed(lambda: unchanged_matrices(found, sides[0].source, sides[1].source, 2))
    return {"opening both sides": opening, "pairing": pairs, "comparing bytes": comparing}


def timed(action: Callable[[], Result]) -> tuple[Result, float]:
    """What an action gives, and its processor seconds."""
    start = time.process_time()
    result = action()
    return result, time.process_time() - start


def _written(folder: Path, tensors: Tensors, **config: int) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "hidden_size": 8, **config}))
    return folder


def main() -> None:
    """Measure and print."""
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 116
    with tempfile.TemporaryDirectory(prefix="llmtrap-bench-") as scratch:
        for size, large in (("", False), (", matrices too large to keep", True)):
            place = Path(scratch) / f"reads{int(large)}"
            place.mkdir()
            now, was = reads_of_each_side(place, large=large)
            print(f"bytes read over bytes changed{size}: target {now:.3f}, base {was:.3f}")
        for step, seconds in seconds_of_planning(Path(scratch), layers).items():
            print(f"{layers * 128 * 3:,} unchanged matrices, {step}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
