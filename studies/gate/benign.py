"""Negative controls: change real checkpoints in ways that harm nothing, many times, and count what the gate objects to.

    python -m studies.gate.benign [RUNS OF EACH KIND]

Each run changes four matrices, drawn at random with those at the edge of a trap in every second run, of MiniLM or of
SmolLM2. It needs the real weights that the tests use.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.support import edits
from tests.support.real_weights import checkpoint

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

# Matrices whose base has traps, or stands within a few units of the edge.
EDGE = {
    "minilm": [f"encoder.layer.{k}.output.dense.weight" for k in range(6)]
    + ["encoder.layer.0.attention.output.dense.weight", "embeddings.position_embeddings.weight"],
    "smollm2_bf16": ["model.layers.27.mlp.gate_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                     "model.layers.28.mlp.up_proj.weight"],
}  # fmt: skip

KINDS: dict[str, Callable[[int], edits.Edit]] = {
    "noise of 1 % of the deviation": lambda seed: edits.small_noise(0.01, seed),
    "noise of 3 % of the deviation": lambda seed: edits.small_noise(0.03, seed),
    "rounding to bfloat16": lambda _: edits.rounded(),
    "LoRA merge: rank 8, 2 % of the norm": lambda seed: edits.low_rank(0.02, 8, seed),
}


def one_run(kind: str, seed: int, scratch: Path) -> tuple[list[str], list[str]]:
    """Change four matrices and gate the copy. Returns the rules of its errors and of its warnings."""
    rng = np.random.default_rng([seed, *kind.encode()])
    rounding = kind.startswith("rounding")
    name = "minilm" if rounding or rng.random() < 0.5 else "smollm2_bf16"
    base = checkpoint(name)
    plain = [n for n, (_, _, shape, _, _) in edits.tensors(base).items()
             if len(shape) == 2 and max(shape) < 4000 and min(shape) > 50]  # fmt: skip
    chosen = list(rng.choice(plain, size=4, replace=False))
    if seed % 2:
        chosen[0] = str(rng.choice(EDGE[name]))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        copy = edits.copy_of(base, Path(folder) / "copy")
        for number, tensor in enumerate(dict.fromkeys(chosen)):
            edits.edit(copy, tensor, KINDS[kind](seed * 10 + number))
        options = GateOptions(workers=1, journal=scratch / "journal")
        found = gate(str(copy), str(base), LoadedPolicy(Policy()), options).judgement
    for finding in (*found.errors, *found.warnings):
        print(f"    {kind}, run {seed}, {name}: {finding.rule} {finding.id}: {finding.message}", flush=True)
    return [f.rule for f in found.errors], [f.rule for f in found.warnings]


def main() -> None:
    """Run every kind and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            failed, errors, warnings = 0, Counter[str](), Counter[str]()
            for seed in range(runs):
                wrong, warned = one_run(kind, seed, Path(scratch))
                failed += bool(wrong)
                errors.update(wrong)
                warnings.update(warned)
            rows.append(f"| {kind} | {runs} | {failed} | {dict(errors) or '–'} | {dict(warnings) or '–'} |")
    print("| change | runs | failed the gate | errors | warnings |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
