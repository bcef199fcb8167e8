"""A real overfit: a tiny language model tuned far past the turn of its held-out loss, gated along the way.

    python -m studies.gate.overfit [STEPS OF THE BASE] [STEPS OF THE FINE-TUNE]

Prints the tables of docs/gate-studies.md, one for each learning rate: held-out loss beside the gate's verdict, as seen.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.gate.training import Texts, loss_on, new_model, save, texts, train

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate
from llmtrap.gate.document import Finding, Judgement

# Close together at first, where the held-out loss turns.
MARKS = (1, 3, 10, 30, 60, 100, 200, 400, 800, 1500, 3000)
RATES = (1e-3, 1e-4)


@dataclass(frozen=True)
class Point:
    """One checkpoint of the run: losses on the small set and on unseen text, and what the gate says of it."""

    step: int
    train_loss: float
    held_out_loss: float
    judgement: Judgement


def follow(
    folder: Path, base_steps: int, marks: Sequence[int], rate: float = 1e-3, small: int = 6_000
) -> Iterator[Point]:
    """Train a base, tune it on a small set of so many bytes, and gate it against the base after each of some steps."""
    data: Texts = texts(small)
    base = new_model()
    for _ in train(base, data.base, base_steps, 1e-3, seed=1):
        pass
    where = save(base, folder / "base")
    model = copy.deepcopy(base)
    options = GateOptions(workers=1, journal=folder / "journal")
    for step, _ in train(model, data.small, max(marks), rate, seed=2):
        if step in marks:
            target = save(model, folder / f"step-{step}")
            found = gate(str(target), str(where), LoadedPolicy(Policy()), options).judgement
            yield Point(step, loss_on(model, data.small), loss_on(model, data.held_out), found)


def by_rule(findings: Iterable[Finding]) -> str:
    """How many matrices each rule names: `LT009: 1, LT010: 3`."""
    counts = Counter(rule for rule, _ in {(finding.rule, finding.id) for finding in findings})
    return ", ".join(f"{rule}: {counts[rule]}" for rule in sorted(counts)) or "–"


def main() -> None:
    """Run it at each rate and print the tables."""
    base_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else MARKS[-1]
    marks = [step for step in MARKS if step <= steps]
    print("| rate | step | loss, small set | loss, held out | gate | errors | warnings | largest change |")
    print("|---|---|---|---|---|---|---|---|")
    for rate in RATES:
        with tempfile.TemporaryDirectory() as scratch:
            for point in follow(Path(scratch), base_steps, marks, rate):
                found = point.judgement
                change = max((update.relative or 0.0 for update in found.updates), default=0.0)
                print(
                    f"| {rate:g} | {point.step:,} | {point.train_loss:.3f} | {point.held_out_loss:.3f} "
                    f"| {found.outcome} | {by_rule(found.errors)} | {by_rule(found.warnings)} | {100 * change:.1f} % |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
