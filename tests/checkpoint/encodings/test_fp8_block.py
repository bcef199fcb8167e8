"""FP8 with scales against torch's own cast and a multiplication written out block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint
from llmtrap.errors import CheckpointError

Save = Callable[..., Checkpoint]
NAME = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"
CONFIG = {"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


def fp8(*shape: int, dtype: torch.dtype = torch.float8_e4m3fn) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)


def grid(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 1e-3 + 1e-4


def by_blocks(weight: torch.Tensor, scales: torch.Tensor, height: int, width: int) -> np.ndarray:
    """The definition: every block of the widened numbers times its scale, the last ones cut short."""
    values = weight.float()
    for row in range(scales.shape[-2]):
        for column in range(scales.shape[-1]):
            part = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            values[part] *= scales[row, column].float()
    return values.numpy()


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [CONFIG, {"model_type": "deepseek_v3"}])
def test_ragged_blocks_as_deepseek_has_them(save: Save, scale_dtype: torch.dtype, config: dict[str, object]) -> None:
    weight, scales = fp8(576, 1000), grid(5, 8).to(scale_dtype)
    checkpoint = save({NAME: weight, f"{NAME}_scale_inv": scales}, config=config)
    (matrix,) = checkpoint.matrices
    assert (matrix.id, matrix.encoding) == ("layers.0.attention.kv_a", "F8_E4M3 blocks 128x128")
    np.testing.assert_array_equal(matrix.read(checkpoint.source), by_blocks(weight, scales, 128, 128))
    pieces = [block.copy() for block in matrix.blocks(checkpoint.source, max_entries=77_000)]
    np.testing.assert_array_equal(np.vstack(pieces), matrix.read(checkpoint.source))
    assert len(pieces) == 8


def test_the_grid_decides_where_the_configuration_says_another_block(save: Save) -> None:
    weight, scales = fp8(192, 96), grid(3, 2)
    checkpoint = save({NAME: weight, f"{NAME}_scale_inv": scales}, config=CONFIG)
    (matrix,) = checkpoint.matrices
    assert matrix.encoding == "F8_E4M3 blocks 64x64"
    np.testing.assert_array_equal(matrix.read(checkpoint.source), by_blocks(weight, scales, 64, 64))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_scales_that_are_powers_of_two(save: Save, as_bytes: bool) -> None:
    exponents = torch.tensor([[120, 130], [0, 255]], dtype=torch.uint8)
    weight = fp8(100, 70)
    stored = exponents if as_bytes else exponents.view(torch.float8_e8m0fnu)
    checkpoint = save({NAME: weight, f"{NAME}_scale_inv": stored})
    factors = torch.tensor([[2.0**-7, 8.0], [2.0**-127, float("nan")]])
    np.testing.assert_array_equal(
        checkpoint.matrices[0].read(checkpoint.source), by_blocks(weight, factors, 64, 64)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "suffix", "described"),
    [
        ((), "_scale", "scaled per tensor"),
        ((1,), "_scale_inv", "scaled per tensor"),
        ((1, 1), "_scale", "scaled per tensor"),
        ((40, 1), "_scale", "scaled per row"),
        ((40,), "_scale", "scaled per row"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_scales_per_tensor_and_per_row(
    save: Save, shape: tuple[int, ...], suffix: str, described: str, dtype: torch.dtype
) -> None:
    weight, scales = fp8(40, 30, dtype=dtype), grid(*shape)
    checkpoint = save({"w.weight": weight, f"w.weight{suffix}": scales})
    (matrix,) = checkpoint.matrices
    expected = weight.float() * (scales.reshape(-1, 1) if scales.numel() > 1 else scales)
    assert matrix.encoding.endswith(described)
    np.testing.assert_array_equal(matrix.read(checkpoint.source), expected.numpy())
    np.testing.assert_array_equal(
        np.vstack([block.copy() for block in matrix.blocks(checkpoint.source, max_entries=100)]), expected.numpy()
    )
    assert set(matrix.tensors) == {"w.weight", f"w.weight{suffix}"}
    assert checkpoint.skipped == ()


@pytest.mark.parametrize("shape", [(3, 4, 3), (3, 1, 1), (3,), ()])
def test_a_stack_of_experts_takes_its_own_scales(save: Save, shape: tuple[int, ...]) -> None:
    weight, scales = fp8(3, 100, 70), grid(*shape)
    checkpoint = save({"experts.up": weight, "experts.up_scale_inv": scales})
    for matrix in checkpoint.matrices:
        mine = (
            scales[matrix.expert].reshape(-1, 3 if len(shape) == 3 and shape[2] == 3 else 1)
            if shape
            else scales.reshape(1, 1)
        )
        size = (32, 32) if shape == (3, 4, 3) else (100, 70)
        np.testing.assert_array_equal(matrix.read(checkpoint.source), by_blocks(weight[matrix.expert], mine, *size))
    assert len(checkpoint.matrices) == 3


def test_pairs_in_two_shards(save: Save) -> None:
    weight, scales = fp8(200, 130), grid(2, 2)
    checkpoint = save({NAME: weight, "lm_head.weight": torch.ones(3, 4)}, {f"{NAME}_scale_inv": scales}, config=CONFIG)
    (matrix,) = [matrix for matrix in checkpoint.matrices if matrix.layer == 0]
    np.testing.assert_array_equal(matrix.read(checkpoint.source), by_blocks(weight, scales, 128, 128))


def test_fp8_without_scales_is_read_as_it_stands(save: Save) -> None:
    weight = fp8(20, 30)
    checkpoint = save({"w.weight": weight})
    assert checkpoint.matrices[0].encoding == "F8_E4M3"
    np.testing.assert_array_equal(checkpoint.matrices[0].read(checkpoint.source), weight.float().numpy())


def test_a_weight_without_the_block_scales_that_the_configuration_speaks_of_is_refused(save: Save) -> None:
    with pytest.raises(CheckpointError, match="block scales, and this one has none") as caught:
        save({NAME: fp8(20, 30)}, config=CONFIG)
    assert (caught.value.file, caught.value.tensor) == ("model.safetensors", NAME)


@pytest.mark.parametrize(
    "scales", [grid(300, 2), grid(7), grid(2, 2, 2), torch.ones(2, 2, dtype=torch.int32), grid(0, 2), grid(3, 150)]
)
def test_scales_that_do_not_fit_are_an_error_that_names_both(save: Save, scales: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"do not fit the weight w\.weight of F8_E4M3 \[200, 130\]") as caught:
        save({"w.weight": fp8(200, 130), "w.weight_scale_inv": scales})
    assert caught.value.tensor == "w.weight_scale_inv"
    assert caught.value.remedy is not None


EXPERT = "model.layers.0.mlp.experts.{}.up_proj.weight"


def test_a_weight_that_lost_its_scales_among_others_that_have_theirs_is_refused(save: Save) -> None:
    whole = {EXPERT.format(k): fp8(64, 96) for k in range(3)}
    scales = {f"{EXPERT.format(k)}_scale": torch.tensor([1e-3 + k]) for k in range(3)}
    assert len(save(whole | scales).matrices) == 3
    del scales[f"{EXPERT.format(1)}_scale"]
    with pytest.raises(
        CheckpointError, match=r"experts\.1\.up_proj\.weight: .*in other layers have scales, and this one"
    ):
        save(whole | scales)


def test_a_weight_of_another_place_may_be_a_plain_cast(save: Save) -> None:
    tensors = {
        EXPERT.format(0): fp8(64, 96),
        f"{EXPERT.format(0)}_scale": torch.tensor([1e-3]),
        "lm_head.weight": fp8(64, 96),
    }
    assert {m.encoding for m in save(tensors).matrices} == {"F8_E4M3", "F8_E4M3 scaled per tensor"}
