"""Changes of a whole model at once: what wrecks it and what does not, each gated against MiniLM as it was.

    python -m studies.gate.whole_model [CHANGE …]

It needs the real weights that the tests use. Prints the first table of docs/gate-studies.md.
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

from llmtrap.demo.mxfp4 import dequantise, quantise
from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

Wanted = Callable[[str], bool]


def zeroed(share: float, seed: int) -> edits.Edit:
    """Set this share of all entries to zero."""
    return lambda w: np.where(np.random.default_rng(seed).random(w.shape) < share, 0, w).astype(np.float32)


def first_rows_zeroed(count: int) -> edits.Edit:
    """Set the first rows to zero."""
    return lambda w: np.where(np.arange(len(w))[:, None] < count, 0, w).astype(np.float32)


def mxfp4(w: edits.Floats) -> edits.Floats:
    """Rounded to MXFP4, where the width allows it."""
    return w if w.shape[1] % 32 else dequantise(*quantise(w)).reshape(w.shape).astype(np.float32)


def q8(w: edits.Floats) -> edits.Floats:
    """Rounded to 8 bits in blocks of 32."""
    blocks = w.reshape(-1, 32)
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True) / 127, 1e-30)
    return (np.round(blocks / scale) * scale).reshape(w.shape).astype(np.float32)


def _attention(name: str) -> bool:
    return name.endswith(("query.weight", "key.weight", "value.weight"))


def _one(name: str) -> bool:
    return "layer.3.output.dense.weight" in name


CHANGES: dict[str, tuple[Callable[[int], edits.Edit], Wanted]] = {
    "every matrix × 1.45": (lambda _: edits.scaled(1.45), lambda _: True),
    "every matrix × 1.1": (lambda _: edits.scaled(1.1), lambda _: True),
    "20 % of all entries zeroed": (lambda seed: zeroed(0.2, seed), lambda _: True),
    "noise of 45 % in every matrix": (lambda seed: edits.small_noise(0.45, seed), lambda _: True),
    "first 32 rows of q, k and v zeroed": (lambda _: first_rows_zeroed(32), _attention),
    "one matrix, rank one, 2 % of its norm": (lambda seed: edits.low_rank(0.02, 1, seed), _one),
    "rounded to bfloat16": (lambda _: edits.rounded(), lambda _: True),
    "rounded to MXFP4": (lambda _: mxfp4, lambda _: True),
    "rounded to Q8": (lambda _: q8, lambda _: True),
    "noise of 3 % in every matrix": (lambda seed: edits.small_noise(0.03, seed), lambda _: True),
    "LoRA merge in every matrix: rank 8, 2 %": (lambda seed: edits.low_rank(0.02, 8, seed), lambda _: True),
}


def main() -> None:
    """Gate every change and print the table."""
    base = checkpoint("minilm")
    print("| change | exit code | errors | median ‖ΔW‖ / ‖W‖ |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(sys.argv[1:] or [*CHANGES, "sre-embedding-model"]):
            if name in CHANGES:
                change, wanted = CHANGES[name]
                target = edits.copy_of(base, Path(scratch) / f"copy{number}")
                for seed, (tensor, (_, _, shape, _, _)) in enumerate(edits.tensors(base).items()):
                    if len(shape) == 2 and "position_ids" not in tensor and wanted(tensor):
                        edits.edit(target, tensor, change(seed))
            else:
                target = checkpoint("minilm_sre")
            options = GateOptions(workers=1, journal=Path(scratch) / "journal")
            found = gate(str(target), str(base), LoadedPolicy(Policy()), options).judgement
            rules = Counter(finding.rule for finding in found.errors)
            moved = float(np.median([update.relative or 0.0 for update in found.updates]))
            words = ", ".join(f"{rule}: {count}" for rule, count in sorted(rules.items())) or "–"
            print(f"| {name} | {found.exit_code} | {words} | {100 * moved:.2g} % |", flush=True)


if __name__ == "__main__":
    main()
