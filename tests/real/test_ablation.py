"""SmolLM2's large entries: the one that the model needs is no trap, and its strongest traps do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import spearmanr
from tests.support import audits

pytest.importorskip("torch", reason="the extra 'ablation' is not installed")

from llmtrap.ablation.probes import bundled_passage
from llmtrap.ablation.run import AblationSettings, ablate
from llmtrap.checkpoint import open_checkpoint


@pytest.mark.thorough
def test_the_needed_entry_is_no_trap_and_the_traps_are_inert(smollm2_with_tokenizer: Path, tmp_path: Path) -> None:
    report = audits.audit(smollm2_with_tokenizer, alpha=False, include=("layers.11.mlp.down", "layers.27.mlp.gate"))
    text = tmp_path / "text.txt"
    text.write_text(bundled_passage()[:2400])
    settings = AblationSettings(matrices=("layers.11.mlp.down", "layers.27.mlp.gate"), top=16, text=text)
    found = {
        (c.matrix, c.row, c.column): c
        for c in ablate(open_checkpoint(str(smollm2_with_tokenizer)), report, settings).candidates
    }
    needed = found["layers.11.mlp.down", 507, 1229]
    assert needed.label == "needed"
    assert needed.nll_change is not None
    assert needed.nll_change.value > 0.5
    assert "trap" not in needed.origins
    assert needed.limits is not None
    assert needed.limits < 1
    assert needed.control_floor is not None
    assert needed.control_floor < 1e-3
    effects = [(c.j.value, c.kl.value) for c in found.values() if c.j is not None and c.kl is not None]
    assert len(effects) == len(found)
    assert spearmanr(*zip(*effects, strict=True)).statistic > 0.9
    traps = [c for c in found.values() if "trap" in c.origins]
    assert len(traps) == 3
    assert {c.label for c in traps} == {"inert"}
