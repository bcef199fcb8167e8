"""The made checkpoints are what they claim: transformers loads them and gets the numbers they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'calibrate'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'calibrate'")


def load(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True, **options
    )
    assert not any(info.values()), info
    return dict(model.state_dict())


def test_the_mxfp4_twin_and_its_upcast_are_one_model(smollm2_mxfp4: Path, smollm2_mxfp4_bf16: Path) -> None:
    packed = load(smollm2_mxfp4, quantization_config=transformers.Mxfp4Config(dequantize=True))
    upcast = load(smollm2_mxfp4_bf16)

    assert packed.keys() == upcast.keys()
    assert all(torch.equal(packed[name], upcast[name]) for name in packed)


def test_the_fp8_twin_is_smollm2_rounded(smollm2_bf16: Path, smollm2_fp8_64: Path) -> None:
    options = transformers.FineGrainedFP8Config(dequantize=True, weight_block_size=(64, 64))
    rounded, exact = load(smollm2_fp8_64, quantization_config=options), load(smollm2_bf16)

    assert rounded.keys() == exact.keys()
    for name, tensor in exact.items():
        error = (rounded[name].float() - tensor.float()).norm() / tensor.float().norm()
        # E4M3 has three bits after the leading one: a relative error of at most 1/16, about 1/38 in the mean square
        assert error < 0.03 if "_proj" in name else error == 0, (name, error)
