"""Negative controls where alarms are likeliest: matrices with several entries near the limit, in 16 bits, unharmed.

    python -m studies.gate.near_limit [RUNS OF EACH KIND]

Each run draws a matrix of BF16 or F16 whose bulk is Gaussian or heavy-tailed, with up to sixteen entries of 0.9 to 1.6
limits, changes it as fine-tunes, merges and requantisation do, and gates the two. No weights are downloaded.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from llmtrap.demo.mxfp4 import dequantise, quantise
from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

Floats = NDArray[np.float32]
Change = Callable[[Floats, np.random.Generator], Floats]

SHAPE = (640, 448)
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": SHAPE[1], "vocab_size": SHAPE[0]}


def near_the_limit(rng: np.random.Generator) -> Floats:
    """A bulk of deviation 1, Gaussian or Student's t with five degrees of freedom, and entries near the limit."""
    bulk = rng.standard_normal(SHAPE) if rng.random() < 0.5 else rng.standard_t(5, SHAPE) / np.sqrt(5 / 3)
    places = rng.choice(bulk.size, int(rng.integers(2, 17)), replace=False)
    sizes = rng.uniform(0.9, 1.6, places.size) * rng.choice([-1, 1], places.size)
    bulk.ravel()[places] = sizes * bulk.size**0.25
    return bulk.astype(np.float32)


def noise(share: float) -> Change:
    """Noise of this share of the deviation."""
    return lambda w, rng: w + np.float32(share) * rng.standard_normal(w.shape).astype(np.float32)


def low_rank(w: Floats, rng: np.random.Generator) -> Floats:
    """A merged LoRA of rank 8 and 2 % of the norm."""
    step = rng.standard_normal((w.shape[0], 8)) @ rng.standard_normal((8, w.shape[1]))
    return w + (0.02 * np.linalg.norm(w) / np.linalg.norm(step) * step).astype(np.float32)


def mxfp4(w: Floats, _: np.random.Generator) -> Floats:
    """Rounded to MXFP4, and stored in 16 bits again."""
    return dequantise(*quantise(w)).reshape(w.shape).astype(np.float32)


def q8(w: Floats, _: np.random.Generator) -> Floats:
    """Rounded to 8 bits in blocks of 32, as GGUF's Q8_0 does."""
    blocks = w.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    return (np.round(blocks / scale) * scale).reshape(w.shape).astype(np.float32)


def more_tokens(w: Floats, rng: np.random.Generator) -> Floats:
    """Eight more rows, and a fine-tune of the others."""
    return np.concatenate([noise(0.01)(w, rng), rng.standard_normal((8, w.shape[1])).astype(np.float32)])


KINDS: dict[str, Change] = {
    "noise of 0.3 % of the deviation": noise(0.003),
    "noise of 1 % of the deviation": noise(0.01),
    "noise of 3 % of the deviation": noise(0.03),
    "LoRA merge: rank 8, 2 % of the norm": low_rank,
    "rounding to MXFP4": mxfp4,
    "rounding to Q8": q8,
    "eight more tokens": more_tokens,
}


def one_run(kind: str, seed: int, scratch: Path) -> tuple[list[str], list[str]]:
    """Change a matrix and gate it against itself as it was. Returns the rules of its errors and of its warnings."""
    rng = np.random.default_rng([seed, *kind.encode()])
    dtype = ml_dtypes.bfloat16 if rng.random() < 0.5 else np.float16
    was = near_the_limit(rng).astype(dtype)
    now = KINDS[kind](was.astype(np.float32), rng).astype(dtype)
    name = "model.embed_tokens.weight" if len(now) > len(was) else "model.layers.0.mlp.down_proj.weight"
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for side, matrix in (("now", now), ("was", was)):
            (Path(folder) / side).mkdir()
            save_file({name: matrix}, Path(folder) / side / "model.safetensors")
            (Path(folder) / side / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": len(matrix)}))
        sides = (str(Path(folder) / side) for side in ("now", "was"))
        found = gate(*sides, LoadedPolicy(Policy()), GateOptions(workers=1)).judgement
    for finding in found.errors:
        print(f"    {kind}, run {seed}: {finding.rule} {finding.id}: {finding.message}", flush=True)
    return [f.rule for f in found.errors], [f.rule for f in found.warnings]


def main() -> None:
    """Run every kind and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    total = 0
    print("| change | runs | failed the gate | errors | warnings |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            failed, errors, warnings = 0, Counter[str](), Counter[str]()
            for seed in range(runs):
                wrong, warned = one_run(kind, seed, Path(scratch))
                failed += bool(wrong)
                errors.update(wrong)
                warnings.update(warned)
            total += failed
            print(f"| {kind} | {runs} | {failed} | {dict(errors) or '–'} | {dict(warnings) or '–'} |", flush=True)
    print(f"| **all** | **{runs * len(KINDS)}** | **{total}** | | |")


if __name__ == "__main__":
    main()
