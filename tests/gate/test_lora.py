"""The gate on LoRA adapters: on their base, and alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from llmtrap.errors import UsageError
from llmtrap.gate import GateOptions, LoadedPolicy, Policy, gate

DEFAULT = LoadedPolicy(Policy())
ALONE = LoadedPolicy(Policy.model_validate({"gate": {"rules": {"LT006": {"adapter_alone": True}}}}))
SHAPES = {"model.layers.0.self_attn.q_proj": (160, 120), "model.layers.0.mlp.up_proj": (300, 120)}


def base(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    tensors = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def adapter(folder: Path, entry: float = 0.0, size: float = 0.01) -> Path:
    """An adapter of rank 3 on `up_proj`; `entry` puts that much on one entry of ΔW."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    out, into = SHAPES["model.layers.0.mlp.up_proj"]
    a, b = rng.standard_normal((3, into)).astype(np.float32), rng.standard_normal((out, 3)).astype(np.float32) * size
    if entry:
        a[2], b[:, 2] = 0, 0
        a[2, 7], b[11, 2] = 1, entry / 2
    name = "base_model.model.model.layers.0.mlp.up_proj"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_on_its_base_measures_what_it_changes_alone(tmp_path: Path) -> None:
    gated = gate(str(adapter(tmp_path / "lora")), str(base(tmp_path / "base")), DEFAULT, GateOptions(workers=1))
    (matrix,) = gated.report.matrices
    assert matrix.encoding == "F32 + LoRA (rank 3, scale 2)"
    judgement = gated.judgement
    assert (judgement.exit_code, judgement.counts.unchanged, judgement.counts.measured) == (0, 1, 1)
    (update,) = judgement.updates
    factors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    a, b = (next(v for n, v in factors.items() if side in n) for side in ("lora_A", "lora_B"))
    values = np.linalg.svd(2.0 * b.astype(float) @ a, compute_uv=False)
    assert update.spectral_norm == pytest.approx(values[0])
    assert update.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2)
    assert update.relative == pytest.approx(np.sqrt((values**2).sum()) / np.sqrt(300 * 120), rel=0.02)
    assert update.rank == 3


def test_a_trap_that_an_adapter_brings_is_found_on_its_base(tmp_path: Path) -> None:
    judgement = gate(
        str(adapter(tmp_path / "lora", entry=60.0)), str(base(tmp_path / "base")), DEFAULT, GateOptions(workers=1)
    ).judgement
    first = judgement.errors[0]
    assert (judgement.exit_code, first.rule) == (1, "LT001")
    assert "row 11, column 7" in first.message


def test_the_journal_does_not_mix_up_two_adapters_on_one_base(tmp_path: Path) -> None:
    options = GateOptions(workers=1, journal=tmp_path / "journal")
    where = str(base(tmp_path / "base"))
    assert gate(str(adapter(tmp_path / "one")), where, DEFAULT, options).judgement.exit_code == 0
    assert gate(str(adapter(tmp_path / "two", entry=60.0)), where, DEFAULT, options).judgement.exit_code == 1
    config = tmp_path / "one" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 6', '"lora_alpha": 600'))
    assert gate(str(tmp_path / "one"), where, DEFAULT, options).judgement.exit_code == 1


def test_an_adapter_alone_is_no_verdict_unless_the_policy_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    where = str(adapter(tmp_path / "lora"))
    judgement = gate(where, None, DEFAULT, GateOptions(workers=1)).judgement
    assert judgement.exit_code == 3
    assert "the adapter's base model 'org/base': " in judgement.notes[0]
    gated = gate(where, None, ALONE, GateOptions(workers=1))
    assert gated.judgement.exit_code == 0
    (matrix,) = gated.report.matrices
    assert (matrix.id, matrix.shape, matrix.traps) == ("model.layers.0.mlp.up_proj", (300, 120), None)
    assert matrix.alpha is not None
    assert not matrix.alpha.reliable
    assert gated.judgement.updates[0].relative is None


def test_broken_factors_are_found_with_and_without_a_base(tmp_path: Path) -> None:
    where = adapter(tmp_path / "lora")
    path = where / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, path)
    for against in (None, str(base(tmp_path / "base"))):
        judgement = gate(str(where), against, ALONE, GateOptions(workers=1)).judgement
        assert (judgement.exit_code, judgement.errors[0].rule) == (1, "LT005")


def test_a_report_cannot_be_an_adapter_s_base_nor_an_adapter_a_base(tmp_path: Path) -> None:
    lora, model = str(adapter(tmp_path / "lora")), str(base(tmp_path / "base"))
    with pytest.raises(UsageError, match="baseline is an adapter"):
        gate(model, lora, DEFAULT, GateOptions(workers=1))


def named(where: Path, base_name: str) -> Path:
    path = where / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base_name}))
    return where


def changed(folder: Path, entry: float) -> Path:
    """A base whose `q_proj` has one entry more of this size."""
    tensors = load_file(base(folder) / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][3, 5] = entry
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_without_a_baseline_the_adapter_s_own_base_is_what_it_is_judged_against(tmp_path: Path) -> None:
    lora = named(adapter(tmp_path / "lora", entry=60.0), str(base(tmp_path / "base")))
    judgement = gate(str(lora), None, DEFAULT, GateOptions(workers=1)).judgement
    assert (judgement.exit_code, judgement.errors[0].rule) == (1, "LT001")
    assert judgement.base is not None
    assert judgement.notes[0].startswith("judged against the base that the adapter names: ")


def test_on_another_base_than_the_baseline_the_model_that_runs_is_judged(tmp_path: Path) -> None:
    lora = named(adapter(tmp_path / "lora"), str(changed(tmp_path / "tuned", entry=40.0)))
    judgement = gate(str(lora), str(base(tmp_path / "base")), DEFAULT, GateOptions(workers=1)).judgement
    assert ("LT001", "layers.0.attention.q") in {(f.rule, f.id) for f in judgement.errors}
    assert judgement.notes[0].startswith("judged is the adapter on its own base, ")
    assert (judgement.counts.measured, judgement.counts.unchanged) == (2, 0)


def test_a_base_that_cannot_be_opened_is_not_taken_for_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lora = named(adapter(tmp_path / "lora"), "org/another")
    model = str(base(tmp_path / "base"))
    judgement = gate(str(lora), model, DEFAULT, GateOptions(workers=1)).judgement
    assert (judgement.exit_code, [f.rule for f in judgement.errors]) == (3, ["LT006"])
    assert "whether the baseline is that model cannot be told" in judgement.headline
    trusting = LoadedPolicy(Policy.model_validate({"gate": {"rules": {"LT006": {"trust_baseline": True}}}}))
    assert gate(str(lora), model, trusting, GateOptions(workers=1)).judgement.exit_code == 0


def test_an_adapter_beside_a_whole_model_is_never_passed_over(tmp_path: Path) -> None:
    original = base(tmp_path / "base")
    merged = adapter(tmp_path / "merged")
    save_file(load_file(original / "model.safetensors"), merged / "model.safetensors")
    gated = gate(str(merged), str(original), DEFAULT, GateOptions(workers=1))
    assert gated.judgement.exit_code == 3
    assert "adapter_model.safetensors (file)" in gated.judgement.model_dump_json()


def test_a_file_beside_the_base_is_its_own_but_not_one_of_that_name_beside_the_adapter(tmp_path: Path) -> None:
    original, lora = base(tmp_path / "base"), adapter(tmp_path / "lora")
    save_file({"w": np.ones((3, 4), np.float32)}, original / "extra.safetensors")
    assert gate(str(lora), str(original), DEFAULT, GateOptions(workers=1)).judgement.exit_code == 0
    save_file({"w": np.zeros((3, 4), np.float32)}, lora / "extra.safetensors")
    judgement = gate(str(lora), str(original), DEFAULT, GateOptions(workers=1)).judgement
    assert (judgement.exit_code, [f.rule for f in judgement.errors]) == (3, ["LT006"])
