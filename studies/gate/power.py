"""The power of the rule for new traps: one entry planted in each of many matrices, at sizes down to the limit.

    python -m studies.gate.power [MATRICES]

An entry lies at random, with a random sign. It counts as found where LT001 names its row and column. It needs the real
weights that the tests use.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from tests.support import edits
from tests.support.real_weights import checkpoint

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

SIZES = (1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
NAMES = ("minilm", "smollm2_bf16", "smollm2_mxfp4")


class Planted:
    """An edit that plants one entry and remembers where."""

    def __init__(self, times: float, rng: np.random.Generator):
        self.times, self.rng, self.place = times, rng, (0, 0)

    def __call__(self, matrix: edits.Floats) -> edits.Floats:
        """Plant it at random."""
        self.place = int(self.rng.integers(matrix.shape[0])), int(self.rng.integers(matrix.shape[1]))
        sign = float(self.rng.choice([-1, 1]))
        return edits.one_entry(sign * self.times, *self.place)(matrix)


def plant(folder: Path, tensor: str, expert: int | None, planted: Planted) -> None:
    """Plant in a plain tensor, or in one expert of a stack in MXFP4."""
    if expert is None:
        edits.edit(folder, tensor, planted)
    else:
        edits.edit_mxfp4(folder, tensor, expert, planted)


def places(folder: Path, count: int, rng: np.random.Generator) -> list[tuple[str, int | None]]:
    """So many matrices at random: of the multilayer perceptrons, or experts where those are in MXFP4."""
    shapes = {name: shape for name, (_, _, shape, _, _) in edits.tensors(folder).items()}
    stacks = [name.removesuffix("_blocks") for name in shapes if name.endswith("_blocks")]
    every: list[tuple[str, int | None]] = [(name, expert) for name in stacks for expert in range(4)]
    if not every:
        every = [(n, None) for n, s in shapes.items() if len(s) == 2 and 1000 < max(s) < 4000 and "position" not in n]
    return [every[place] for place in rng.choice(len(every), size=min(count, len(every)), replace=False)]


def share_found(name: str, times: float, chosen: list[tuple[str, int | None]], scratch: Path) -> tuple[int, int]:
    """How many planted entries the gate names, and how many it calls a new trap of any cause."""
    rng = np.random.default_rng([round(100 * times), *name.encode()])
    base = checkpoint(name)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        copy = edits.copy_of(base, Path(folder) / "copy")
        wanted = []
        for tensor, expert in chosen:
            planted = Planted(times, rng)
            plant(copy, tensor, expert, planted)
            wanted.append((tensor, expert, planted.place))
        options = GateOptions(workers=1, journal=scratch / "journal")
        errors = gate(str(copy), str(base), LoadedPolicy(Policy()), options).judgement.errors
    traps = [finding for finding in errors if finding.rule == "LT001"]
    named = 0
    for tensor, expert, (row, column) in wanted:
        where = f"row {row:,}, column {column:,},"
        of_expert = "" if expert is None else f".experts.{expert}."
        named += any(f.tensor is not None and f.tensor.startswith(tensor) and of_expert in str(f.id)
                     and where in f.message for f in traps)  # fmt: skip
    return named, len({finding.id for finding in traps})


def main() -> None:
    """Plant, gate, and print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"| checkpoint | matrices | {' | '.join(f'{times}' for times in SIZES)} |\n|---|---|{'---|' * len(SIZES)}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in NAMES:
            chosen = places(checkpoint(name), count, np.random.default_rng([*name.encode()]))
            cells = [share_found(name, times, chosen, Path(scratch)) for times in SIZES]
            print(f"| {name} | {len(chosen)} | {' | '.join(f'{a} ({b})' for a, b in cells)} |", flush=True)
    print("\nnamed by row and column, and in brackets: matrices with a new trap of any cause")


if __name__ == "__main__":
    main()
