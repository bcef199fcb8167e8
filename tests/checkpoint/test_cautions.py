"""Rotations and scaled columns are said, hold a clean word back, and are undone where the file says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.torch
import numpy as np
import pytest
import torch

from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.checkpoint import Checkpoint
from llmtrap.errors import CheckpointError
from llmtrap.report.document import Report
from llmtrap.report.verdict import judge
from llmtrap.spectra.backends.decoding import ArrayApiDecoder

Save = Callable[..., Checkpoint]
NAME = "model.layers.0.mlp.down_proj"


def matrix(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.02


def rotated(*locations: str) -> dict[str, Any]:
    places = [{"targets": ["Linear"], "location": location} for location in locations]
    transforms = {"config_groups": {"R1": {"type": "random-hadamard", "apply": places}}}
    return {"quantization_config": {"quant_method": "compressed-tensors", "transform_config": transforms}}


def audited(checkpoint: Checkpoint) -> Report:
    settings = AuditSettings(traps="measure", alpha=False)
    *_, last = AuditRun(checkpoint, settings, RunOptions(workers=1)).events()
    assert isinstance(last, Finished)
    return last.report


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        ({}, rotated("weight_input", "input")),
        ({}, {"quantization_config": {"quant_method": "fp8", "rotation": "quarot"}}),
        ({"model.layers.0.mlp.down_proj.hadamard.weight": matrix(8, 8)}, {}),
        ({"model.layers.0.mlp.down_proj.R1_weight_input.weight": matrix(8, 8)}, {}),
    ],
)
def test_nothing_is_called_clean_that_is_stored_rotated(
    save: Save, tensors: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    checkpoint = save({f"{NAME}.weight": matrix(64, 64), **tensors}, config=config)
    assert [item.kind for item in checkpoint.cautions] == ["rotated"]
    report = audited(checkpoint)
    answers = judge(report)
    assert (report.summary.level, answers.word, answers.complete) == ("partly_measured", "Not decided", False)
    assert "A rotation leaves α as it is and hides every trap" in report.summary.verdict
    assert answers.meaning == "A rotation hides every trap: audit the checkpoint before it was rotated."


@pytest.mark.parametrize("config", [rotated("input", "output"), rotated(), {}])
def test_transforms_of_activations_alone_leave_the_weights_as_they_are(save: Save, config: dict[str, Any]) -> None:
    checkpoint = save({f"{NAME}.weight": matrix(64, 64)}, config=config)
    assert checkpoint.cautions == ()
    assert audited(checkpoint).summary.level == "usual"


def test_columns_scaled_before_rounding_are_scaled_back(save: Save) -> None:
    weight, scales = matrix(40, 50).to(torch.float8_e4m3fn), torch.rand(50) + 0.5
    tensors = {
        f"{NAME}.weight": weight, f"{NAME}.weight_scale": torch.tensor(0.5), f"{NAME}.pre_quant_scale": scales,
        "lm_head.weight": matrix(40, 50), "lm_head.pre_quant_scale": scales.clone(),
    }  # fmt: skip
    checkpoint = save(tensors)
    found = {item.encoding: item for item in checkpoint.matrices}
    quantised = found["F8_E4M3 scaled per tensor, column scaling undone"]
    np.testing.assert_array_equal(quantised.read(checkpoint.source), (weight.float() * 0.5 * scales).numpy())
    assert quantised.bits == pytest.approx(8, abs=0.1)
    decoder = ArrayApiDecoder(array_api_compat.torch, "cpu")
    blocks = [decoder.decode(decoder.send(block)) for block in quantised.packed_blocks(checkpoint.source, 200) or ()]
    np.testing.assert_array_equal(torch.vstack(blocks).numpy(), quantised.read(checkpoint.source))
    plain = found["F32, column scaling undone"]
    np.testing.assert_array_equal(plain.read(checkpoint.source), (matrix(40, 50) * scales).numpy())
    assert [item.kind for item in checkpoint.cautions] == ["column_scaled"]
    assert checkpoint.skipped == ()


def test_column_scales_of_another_size_are_an_error(save: Save) -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        save({f"{NAME}.weight": matrix(40, 50), f"{NAME}.pre_quant_scale": torch.ones(40)})


def test_awq_is_said_to_be_scaled(save: Save) -> None:
    words = torch.zeros(32, 4, dtype=torch.int32)
    tensors = {f"{NAME}.qweight": words, f"{NAME}.qzeros": words[:1].clone(), f"{NAME}.scales": torch.ones(1, 32)}
    (caution,) = save(tensors).cautions
    assert caution.kind == "column_scaled"
    assert caution.text.startswith("AWQ stores matrices with scaled columns")


def test_below_four_bits_alpha_claims_no_band(save: Save) -> None:
    words = torch.randint(-(2**31), 2**31, (8, 128), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    tensors = {
        f"{NAME}.qweight": words, f"{NAME}.qzeros": words[:1, :8].clone(), f"{NAME}.scales": torch.ones(1, 128).half()
    }  # fmt: skip
    checkpoint = save(tensors)
    *_, last = AuditRun(checkpoint, AuditSettings(), RunOptions(workers=1)).events()
    assert isinstance(last, Finished)
    (found,) = last.report.matrices
    assert found.encoding == "GPTQ INT2 groups of 128 (v1)"
    assert found.bits == pytest.approx(2.14, abs=0.01)
    assert found.rounding is not None
    assert f"1 matrix in fewer than 16 bits; in the fewest, {found.rounding}." in judge(last.report).certainty
    assert found.alpha is not None
    assert (found.alpha.band, found.alpha.reliable) == (None, False)
    assert found.alpha.reason == "stored in 2.1 bits a weight: α is that of the rounded matrix"
