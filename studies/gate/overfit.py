"""A real overfit: a tiny language model tuned far past the turn of its held-out loss, gated along the way.

    python -m studies.gate.overfit [STEPS OF THE BASE] [STEPS OF THE FINE-TUNE]

Prints the table of docs/gate.md: held-out loss beside the gate's verdict, as seen.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studies.gate.training import Texts, loss_on, new_model, save, texts, train

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate
from llmtrap.gate.document import Judgement


@dataclass(frozen=True)
class Point:
    """One checkpoint of the run: losses on the small set and on unseen text, and what the gate says of it."""

    step: int
    train_loss: float
    held_out_loss: float
    judgement: Judgement


def follow(
    folder: Path, base_steps: int, steps: int, every: int, rate: float = 1e-3, small: int = 6_000
) -> Iterator[Point]:
    """Train a base, tune it on a small set of so many bytes, and gate the checkpoints against the base."""
    data: Texts = texts(small)
    base = new_model()
    for _ in train(base, data.base, base_steps, 1e-3, seed=1):
        pass
    where = save(base, folder / "base")
    model = copy.deepcopy(base)
    options = GateOptions(workers=1, journal=folder / "journal")
    for step, _ in train(model, data.small, steps, rate, seed=2):
        if step == 1 or step % every == 0:
            target = save(model, folder / f"step-{step}")
            found = gate(str(target), str(where), LoadedPolicy(Policy()), options).judgement
            yield Point(step, loss_on(model, data.small), loss_on(model, data.held_out), found)


def main() -> None:
    """Run it and print the table."""
    base_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    print("| step | loss, small set | loss, held out | gate | errors | largest change |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for point in follow(Path(scratch), base_steps, steps, max(1, steps // 15)):
            found = point.judgement
            named = sorted({f"{f.rule} ({f.id}: {f.message[:60]})" for f in found.errors})
            change = max((update.relative or 0.0 for update in found.updates), default=0.0)
            print(
                f"| {point.step} | {point.train_loss:.3f} | {point.held_out_loss:.3f} | {found.outcome} "
                f"| {'; '.join(named[:4])} | {100 * change:.0f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
