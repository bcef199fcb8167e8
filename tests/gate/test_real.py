"""The gate on real weights: a real fine-tune passes, planted faults are found, and only what changed is measured.

The whole tables are made by studies/gate; what stands here is the part that every change must keep.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.gate import controls
from tests.support import edits

from llmtrap.audit import AuditSettings, audit
from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate
from llmtrap.report.json import write_json

DEFAULT = LoadedPolicy(Policy())


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the bases are measured once."""
    return tmp_path_factory.mktemp("journal")


def test_a_real_fine_tune_passes_with_its_inherited_traps(minilm_sre: Path, minilm: Path, journal: Path) -> None:
    gated = gate(str(minilm_sre), str(minilm), DEFAULT, GateOptions(workers=1, journal=journal))
    judgement = gated.judgement
    assert (judgement.outcome, judgement.exit_code, judgement.errors) == ("passed", 0, [])
    assert (judgement.counts.matrices, judgement.counts.unchanged, judgement.counts.measured) == (39, 1, 38)
    # Whether some of the base comes from the journal depends on the tests that ran before
    assert tuple(note for note in judgement.notes if not note.startswith("taken from the journal")) == (
        "63 tensors changed, no weight matrices: embeddings.LayerNorm.bias, embeddings.LayerNorm.weight, "
        "embeddings.position_embeddings.weight, …",
        "1 tensor only in the base, no weight matrix: embeddings.position_ids",
    )
    # It is the comparison that passes it: without a base the same traps are found.
    inherited = {m.id for m in gated.report.matrices if m.traps and m.traps.centred and m.traps.reliable}
    assert len(inherited) >= 5
    assert len(judgement.updates) == 38
    assert all(0.001 < (update.relative or 0) < 0.05 for update in judgement.updates)


SAMPLE = [
    ("minilm", "one entry of 1.6 limits"),
    ("minilm", "one NaN"),
    ("minilm", "layer replaced by noise"),
    ("smollm2_mxfp4", "one NaN scale"),
    ("smollm2_mxfp4", "a shard is missing"),
]
# Each measures what the fault touches of the larger models, and their bases
LARGER = [
    ("smollm2_bf16", "one entry of 1.6 limits"),
    ("smollm2_bf16", "mean shift of 2 limits"),
    ("smollm2_bf16", "layer × 3"),
    ("smollm2_bf16", "a shard is missing"),
    ("smollm2_mxfp4", "one entry of 1.6 limits"),
    ("smollm2_mxfp4", "24 × 24 entries of 0.8 limits"),
]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "fault"), [*SAMPLE, *(pytest.param(*case, marks=pytest.mark.thorough) for case in LARGER)]
)
def test_a_planted_fault_is_found(
    request: pytest.FixtureRequest, tmp_path: Path, journal: Path, name: str, fault: str
) -> None:
    request.getfixturevalue(name)
    (control,) = [control for control in controls.controls(name) if control.fault == fault]
    seen = controls.run(control, tmp_path, journal)
    assert seen.exit_code == control.exit_code
    if control.rule:
        assert control.rule in seen.rules
    else:
        assert controls.LAST_SHARD[name] in seen.message


def test_another_architecture_is_no_verdict(minilm: Path, smollm2_bf16: Path, journal: Path) -> None:
    seen = controls.see(minilm, smollm2_bf16, journal)
    assert (seen.exit_code, seen.rules) == (3, ("LT006",))
    assert "another architecture" in seen.message


def test_only_the_two_changed_matrices_of_211_are_measured(smollm2_bf16: Path, tmp_path: Path) -> None:
    copy = edits.copy_of(smollm2_bf16, tmp_path / "copy")
    changed = {"model.layers.3.self_attn.k_proj.weight": "layers.3.attention.k",
               "model.layers.20.self_attn.v_proj.weight": "layers.20.attention.v"}  # fmt: skip
    for seed, tensor in enumerate(changed):
        edits.edit(copy, tensor, edits.small_noise(0.02, seed))
    gated = gate(str(copy), str(smollm2_bf16), DEFAULT, GateOptions(workers=1))
    assert {matrix.id for matrix in gated.report.matrices} == set(changed.values())
    assert gated.base is not None
    assert {matrix.id for matrix in gated.base.matrices} == set(changed.values())
    counts = gated.judgement.counts
    assert (counts.matrices, counts.unchanged, counts.measured) == (211, 209, 2)
    assert gated.judgement.exit_code == 0


def test_reports_and_weights_may_stand_on_either_side(minilm_sre: Path, minilm: Path, tmp_path: Path) -> None:
    settings = AuditSettings(include=("layers.5.*",))
    now, was = audit(str(minilm_sre), settings), audit(str(minilm), settings)
    write_json(now, tmp_path / "now.json")
    write_json(was, tmp_path / "was.json")
    sides = [(tmp_path / "now.json", tmp_path / "was.json"), (minilm_sre, tmp_path / "was.json")]
    for target, base in sides:
        judgement = gate(str(target), str(base), DEFAULT, GateOptions(workers=1)).judgement
        # Of a part, and without ΔW: nothing is found, and that is no pass.
        assert (judgement.exit_code, judgement.counts.measured) == (3, 6)
        assert {finding.rule for finding in judgement.errors} == {"LT006"}
        assert "LT010" in {item.rule for item in judgement.unjudged}
        assert judgement.updates == ()


def test_a_copy_with_nothing_changed_measures_nothing(smollm2_mxfp4: Path, tmp_path: Path) -> None:
    copy = edits.copy_of(smollm2_mxfp4, tmp_path / "copy")
    gated = gate(str(copy), str(smollm2_mxfp4), DEFAULT, GateOptions(workers=1))
    assert gated.report.matrices == ()
    assert gated.judgement.counts.unchanged == gated.judgement.counts.matrices == 92
    assert gated.judgement.exit_code == 0
