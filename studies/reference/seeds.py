"""Whether the number of matrices with traps depends on the seed of the shuffles."""

from __future__ import annotations

from collections.abc import Iterator

import llmtrap
from llmtrap.report.facts import tally
from studies.reference.audits import audit
from studies.reference.models import Source

SEEDS = range(12)


def counts_by_seed(source: Source) -> Iterator[tuple[int, int]]:
    """Matrices with traps, and matrices that the shuffles leave undecided, for each seed.

    Certified and predicted matrices are the same with every seed: only those that are shuffled are measured again.
    """
    whole = audit(source)
    shuffled = tuple(m.id for m in whole.matrices if m.traps is not None and m.traps.method == "measured")
    for seed in SEEDS:
        again = {}
        if shuffled:
            settings = llmtrap.AuditSettings(include=shuffled, seed=seed)
            again = {m.id: m for m in llmtrap.audit(str(source.target()), settings).matrices}
        if set(again) != set(shuffled):
            raise RuntimeError(f"{source.name}: {set(shuffled) - set(again)} not measured again")
        counts = tally([again.get(m.id, m) for m in whole.matrices])
        yield counts.trapped, counts.uncertain
