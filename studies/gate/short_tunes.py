"""Negative controls by real training: short fine-tunes that do not hurt held-out loss, each gated against its base.

python -m studies.gate.short_tunes [RUNS]
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
from collections import Counter
from pathlib import Path

from studies.gate.training import loss_on, new_model, save, texts, train

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

BASE_STEPS = 1500
STEPS = 25
RATES = (3e-5, 1e-4, 3e-4)


def main() -> None:
    """Run them and print the counts."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    data = texts()
    base = new_model()
    for _ in train(base, data.base, BASE_STEPS, 1e-3, seed=1):
        pass
    before = loss_on(base, data.held_out)
    failed, with_warning, worst, rules, warned = 0, 0, -math.inf, Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        where = save(base, Path(scratch) / "base")
        options = GateOptions(workers=1, journal=Path(scratch) / "journal")
        for seed in range(runs):
            model = copy.deepcopy(base)
            for _ in train(model, data.base, STEPS, RATES[seed % len(RATES)], seed=100 + seed):
                pass
            worst = max(worst, loss_on(model, data.held_out) - before)
            target = save(model, Path(scratch) / f"run-{seed}")
            found = gate(str(target), str(where), LoadedPolicy(Policy()), options).judgement
            failed += found.exit_code != 0
            with_warning += bool(found.warnings)
            rules.update(f"{f.rule} {f.id}" for f in found.errors)
            warned.update(f.rule for f in found.warnings)
            for finding in (*found.errors, *found.warnings):
                print(f"    run {seed}: {finding.rule} {finding.id}: {finding.message}", flush=True)
    print(f"held-out loss of the base {before:.3f}, worst change {worst:+.3f}")
    print("| change | runs | failed the gate | errors | runs with warnings |\n|---|---|---|---|---|")
    said = f"{with_warning} {dict(warned)}"
    print(f"| {STEPS} steps of Adam, tiny GPT-2 | {runs} | {failed} | {dict(rules) or '–'} | {said} |")


if __name__ == "__main__":
    main()
