"""MXFP4 against transformers' own decoder, over whatever bytes, scales and shards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint
from llmtrap.errors import CheckpointError

Save = Callable[..., Checkpoint]
NAME = "model.layers.0.mlp.experts.gate_up_proj"


def random_pair(seed: int, scales: tuple[int, int] = (0, 255)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (3, 12, 5, 16), dtype=torch.uint8, generator=generator)
    return blocks, torch.randint(*scales, (3, 12, 5), dtype=torch.uint8, generator=generator)


def by_transformers(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: PLC0415  (slow to import)

    decoded = convert_moe_packed_tensors(blocks.clone(), scales.clone(), dtype=torch.float32)
    return decoded.transpose(1, 2).contiguous().numpy()


def test_decodes_bit_for_bit_as_transformers_transposed(save: Save) -> None:
    blocks, scales = random_pair(0)
    scales[0, 0] = torch.tensor([0, 1, 127, 253, 254], dtype=torch.uint8)
    checkpoint = save({f"{NAME}_blocks": blocks, f"{NAME}_scales": scales})
    expected = by_transformers(blocks, scales)
    assert [matrix.id for matrix in checkpoint.matrices] == [f"layers.0.experts.{e}.gate_up" for e in range(3)]
    for matrix in checkpoint.matrices:
        assert (matrix.encoding, matrix.shape, matrix.tensors) == (
            "MXFP4", (12, 160), (f"{NAME}_blocks", f"{NAME}_scales"),
        )  # fmt: skip
        values = matrix.read(checkpoint.source)
        assert values.tobytes() == expected[matrix.expert].tobytes()
        in_pieces = np.vstack([block.copy() for block in matrix.blocks(checkpoint.source, max_entries=500)])
        assert in_pieces.tobytes() == values.tobytes()


def test_a_scale_of_255_is_not_a_number(save: Save) -> None:
    blocks, scales = random_pair(1)
    scales[1, 3, 2] = 255
    checkpoint = save({f"{NAME}_blocks": blocks, f"{NAME}_scales": scales})
    values = checkpoint.matrices[1].read(checkpoint.source)
    assert np.isnan(values[3, 64:96]).all()
    assert np.isnan(values).sum() == 32


@pytest.mark.parametrize("scales", [(0, 256), (118, 121), (254, 256)])
def test_a_histogram_counts_the_decoded_values(save: Save, scales: tuple[int, int]) -> None:
    checkpoint = save(dict(zip((f"{NAME}_blocks", f"{NAME}_scales"), random_pair(2, scales), strict=True)))
    for matrix in checkpoint.matrices:
        counted = matrix.histogram(checkpoint.source)
        assert counted is not None
        values, counts = np.unique(matrix.read(checkpoint.source).astype(np.float64), return_counts=True)
        np.testing.assert_array_equal(counted[0], values)
        np.testing.assert_array_equal(counted[1], counts)


def test_a_histogram_of_many_groups_of_one_scale_counts_the_same(save: Save) -> None:
    generator = torch.Generator().manual_seed(5)
    blocks = torch.randint(0, 256, (1, 2000, 10, 16), dtype=torch.uint8, generator=generator)
    scales = torch.full((1, 2000, 10), 120, dtype=torch.uint8)
    scales[0, :7] = 121
    checkpoint = save({f"{NAME}_blocks": blocks, f"{NAME}_scales": scales})
    counted = checkpoint.matrices[0].histogram(checkpoint.source)
    values, counts = np.unique(checkpoint.matrices[0].read(checkpoint.source).astype(np.float64), return_counts=True)
    assert counted is not None
    np.testing.assert_array_equal(counted, (values, counts))


def test_packed_blocks_are_the_stored_bytes(save: Save) -> None:
    blocks, scales = random_pair(3)
    checkpoint = save({f"{NAME}_blocks": blocks, f"{NAME}_scales": scales})
    packed = checkpoint.matrices[2].stored.packed(checkpoint.source, 2, 4, 9)
    assert packed is not None
    assert packed.codes.tobytes() == blocks[2, 4:9].numpy().tobytes()
    assert packed.tiles[0].factors.tobytes() == scales[2, 4:9].numpy().tobytes()
    assert (packed.shape, packed.size) == ((5, 160), 5 * 5 * 17)


def test_the_two_halves_may_lie_in_two_shards_under_either_name(save: Save) -> None:
    blocks, scales = random_pair(4)
    expected = by_transformers(blocks, scales)
    original = "block.7.mlp.mlp2_weight"
    checkpoint = save(
        {f"{NAME}_scales": scales, f"{original}.blocks": blocks, "lm_head.weight": torch.ones(4, 3)},
        {f"{NAME}_blocks": blocks, f"{original}.scales": scales},
    )
    found = {matrix.id: matrix.read(checkpoint.source) for matrix in checkpoint.matrices}
    for expert in range(3):
        assert found[f"layers.0.experts.{expert}.gate_up"].tobytes() == expected[expert].tobytes()
        assert found[f"layers.7.experts.{expert}.down"].tobytes() == expected[expert].tobytes()


def test_small_stacks_under_gpt_oss_s_own_names_need_no_configuration(save: Save) -> None:
    tensors = {}
    for layer in range(2):
        for k in (1, 2):
            blocks, scales = random_pair(layer + k)
            tensors |= {f"block.{layer}.mlp.mlp{k}_weight.blocks": blocks}
            tensors |= {f"block.{layer}.mlp.mlp{k}_weight.scales": scales}
    checkpoint = save(tensors)
    assert checkpoint.skipped == ()
    assert {matrix.id for matrix in checkpoint.matrices} == {
        f"layers.{layer}.experts.{expert}.{role}"
        for layer in range(2) for expert in range(3) for role in ("gate_up", "down")
    }  # fmt: skip


def test_bytes_of_another_kind_under_such_a_name_are_only_skipped(save: Save) -> None:
    checkpoint = save({"used_blocks": torch.ones(7, dtype=torch.uint8), "a.weight": torch.ones(8, 8)})
    assert [(item.tensor, item.reason) for item in checkpoint.skipped] == [("used_blocks", "integer buffer (U8)")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pair: pair.pop(f"{NAME}_scales"), "MXFP4 blocks without their scales"),
        (lambda pair: pair.pop(f"{NAME}_blocks"), f"MXFP4 scales without {NAME}_blocks"),
        (lambda pair: pair.update({f"{NAME}_scales": torch.zeros(3, 12, 4, dtype=torch.uint8)}), "MXFP4 scales of U8"),
        (lambda pair: pair.update({f"{NAME}_scales": torch.zeros(3, 12, 5)}), r"MXFP4 scales of F32 \[3, 12, 5\]"),
        (lambda pair: pair.update({f"{NAME}_blocks": torch.zeros(3, 12, dtype=torch.uint8)}), "MXFP4 blocks of shape"),
    ],
)
def test_halves_that_do_not_fit_are_an_error_with_tensor_and_remedy(
    save: Save, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    pair = dict(zip((f"{NAME}_blocks", f"{NAME}_scales"), random_pair(0), strict=True))
    change(pair)
    with pytest.raises(CheckpointError, match=message) as caught:
        save(pair)
    assert caught.value.file == "model.safetensors"
    assert caught.value.tensor is not None
    assert caught.value.remedy is not None
