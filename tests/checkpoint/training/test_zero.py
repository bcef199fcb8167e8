"""DeepSpeed's training checkpoints of every stage, cut up as its zero_to_fp32.py puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import open_checkpoint
from llmtrap.errors import CheckpointError, TargetError, UnsupportedError

SHAPES = {
    "model.embed_tokens.weight": (9, 7), "model.layers.0.self_attn.q_proj.weight": (5, 11),
    "model.layers.0.input_layernorm.weight": (7,), "model.layers.0.mlp.experts.up": (3, 4, 5),
}  # fmt: skip


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def zero3(folder: Path, ranks: int, groups: int = 1, **model: Any) -> dict[str, torch.Tensor]:
    """A checkpoint of stage 3: `groups` are the flat groups into which each process' numbers are divided."""
    step = folder / "global_step20"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step20\n")
    (folder / "zero_to_fp32.py").write_text("# DeepSpeed's own")
    made = weights()
    shapes = [{name: tensor.shape for name, tensor in made.items()}]
    for rank in range(ranks):
        slices = []
        for tensor in made.values():
            run = -(-tensor.numel() // ranks)
            padded = torch.nn.functional.pad(tensor.reshape(-1), (0, run * ranks - tensor.numel()))
            slices.append(padded[rank * run : (rank + 1) * run])
        flat = list(torch.cat(slices).tensor_split(groups))
        state = {"zero_stage": 3, "partition_count": ranks, "fp32_flat_groups": flat}
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save({"optimizer_state_dict": state, "ds_version": "0.17"}, step / f"bf16_{name}_optim_states.pt")
        empty = {name: torch.empty(0, dtype=torch.bfloat16) for name in made}
        saved = {"module": empty, "param_shapes": shapes, "buffer_names": [], **model}
        torch.save(saved, step / f"{name}_model_states.pt")
    return made


@pytest.mark.parametrize("ranks", [1, 2, 3, 16])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("where", ["", "global_step20"])
def test_the_slices_of_stage_3_make_the_whole_weights(tmp_path: Path, ranks: int, groups: int, where: str) -> None:
    made = zero3(tmp_path, ranks, groups)
    checkpoint = open_checkpoint(str(tmp_path / where))
    assert len(checkpoint.matrices) == 5
    for matrix in checkpoint.matrices:
        expected = made[matrix.tensor].numpy()
        expected = expected if matrix.index is None else expected[matrix.index]
        np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)
        pieces = np.concatenate([block.copy() for block in matrix.blocks(checkpoint.source, 8)])
        np.testing.assert_array_equal(pieces, expected)
    assert [item.tensor for item in checkpoint.skipped if item.kind == "one_dimensional"] == [
        "model.layers.0.input_layernorm.weight"
    ]


def test_stages_1_and_2_hold_the_weights_whole(tmp_path: Path) -> None:
    made = {name: tensor.to(torch.bfloat16) for name, tensor in weights().items()}
    step = tmp_path / "global_step5"
    step.mkdir()
    (tmp_path / "latest").write_text("global_step5")
    torch.save({"module": made, "buffer_names": [], "optimizer": None}, step / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {"zero_stage": 2}}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    for target in (tmp_path, step):
        checkpoint = open_checkpoint(str(target))
        assert {matrix.encoding for matrix in checkpoint.matrices} == {"BF16"}
        for matrix in checkpoint.matrices:
            expected = made[matrix.tensor].float().numpy()
            expected = expected if matrix.index is None else expected[matrix.index]
            np.testing.assert_array_equal(matrix.read(checkpoint.source), expected)
        (aside,) = (item for item in checkpoint.skipped if item.kind == "file_not_read")
        assert "state of a training run" in aside.reason


def test_a_missing_process_is_named(tmp_path: Path) -> None:
    zero3(tmp_path, 3)
    (tmp_path / "global_step20" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match="of 3 processes that of rank 1 is missing"):
        open_checkpoint(str(tmp_path))
    for path in (tmp_path / "global_step20").glob("*optim_states.pt"):
        path.unlink()
    with pytest.raises(CheckpointError, match="which hold them, are not here"):
        open_checkpoint(str(tmp_path))


def test_shapes_that_take_more_than_the_slices_have_are_refused(tmp_path: Path) -> None:
    zero3(tmp_path, 2, param_shapes=[{"a.weight": torch.Size([1000, 1000])}])
    with pytest.raises(CheckpointError, match="the parameters take more"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"frozen_param_shapes": {"a.weight": torch.Size([2, 2])}}, "frozen parameters"),
        ({"param_shapes": None}, "without param_shapes"),
    ],
)
def test_what_is_not_read_names_the_converter(tmp_path: Path, model: dict[str, Any], words: str) -> None:
    zero3(tmp_path, 2, **model)
    with pytest.raises(UnsupportedError, match=words) as caught:
        open_checkpoint(str(tmp_path))
    assert "zero_to_fp32.py" in str(caught.value.remedy)


def test_tensor_parallel_slices_are_refused_by_name(tmp_path: Path) -> None:
    zero3(tmp_path, 1)
    step = tmp_path / "global_step20"
    (step / "zero_pp_rank_0_mp_rank_01_model_states.pt").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="tensor-parallel"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("latest", ["../elsewhere", "/etc", "a/../b", "", "x" * 2000, "gone"])
def test_latest_leads_nowhere_else(tmp_path: Path, latest: str) -> None:
    zero3(tmp_path, 1)
    (tmp_path / "latest").write_text(latest)
    with pytest.raises((CheckpointError, TargetError), match=r"should name a folder beside it|only in the subfolder"):
        open_checkpoint(str(tmp_path))


def test_exported_weights_beside_the_state_are_what_is_audited(tmp_path: Path) -> None:
    zero3(tmp_path, 2)
    torch.save({"lm_head.weight": torch.ones(3, 4)}, tmp_path / "pytorch_model.bin")
    assert [matrix.tensor for matrix in open_checkpoint(str(tmp_path)).matrices] == ["lm_head.weight"]
