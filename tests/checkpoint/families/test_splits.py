"""Fused matrices are divided where the family says how and the sizes agree; else they stay whole, and it is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.checkpoint.families import load_families, read_family
from llmtrap.errors import UsageError

Save = Callable[..., Checkpoint]
WHOLE = "left whole: it is not known how its parts lie, or the sizes do not agree"


def split(save: Save, module: str, shape: tuple[int, ...], **config: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The rows (or columns) that each part has of a matrix whose entries are their row's (or column's) number."""
    columns = config.pop("columns", False)
    size = shape[-1] if columns else shape[-2]
    numbers = torch.arange(size, dtype=torch.float32)
    matrix = (numbers if columns else numbers[:, None]).expand(shape).contiguous()
    checkpoint = save({f"{module}.weight": matrix, **config.pop("beside", {})}, config=config, split_fused=True)
    found = {}
    for one in checkpoint.matrices:
        if one.tensor.startswith(module):
            read = one.read(checkpoint.source)
            found[one.role.rpartition(".")[2]] = (read[0] if columns else read[:, 0]).astype(int).tolist()
    return found, checkpoint.notes


def test_multi_query_starcoder_is_rows_of_queries_then_one_key_and_one_value(save: Save) -> None:
    found, notes = split(
        save, "transformer.h.0.attn.c_attn", (32, 24), model_type="gpt_bigcode", n_head=6, multi_query=True
    )
    assert found == {"q": list(range(24)), "k": list(range(24, 28)), "v": list(range(28, 32))}
    assert not notes


def test_gpt2_lies_in_columns_and_only_where_they_are_three_times_the_rows(save: Save) -> None:
    found, _ = split(save, "transformer.h.0.attn.c_attn", (8, 24), model_type="gpt2", n_head=2, columns=True)
    assert found == {"q": list(range(8)), "k": list(range(8, 16)), "v": list(range(16, 24))}
    found, notes = split(save, "transformer.h.0.attn.c_attn", (24, 8), model_type="gpt2", n_head=2)
    assert list(found) == ["qkv"]
    assert notes == (f"1 × attention.qkv {WHOLE}",)


def test_internlm2_keeps_the_heads_of_a_group_together(save: Save) -> None:
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}
    found, _ = split(save, "model.layers.0.attention.wqkv", (16, 8), model_type="internlm2", **config)
    assert found == {"q": [0, 1, 2, 3, 8, 9, 10, 11], "k": [4, 5, 12, 13], "v": [6, 7, 14, 15]}


def test_chatglm_counts_its_key_heads_in_groups(save: Save) -> None:
    layer = "transformer.encoder.layers.0."
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "multi_query_group_num": 1}
    found, _ = split(save, layer + "self_attention.query_key_value", (24, 16), model_type="chatglm", **config)
    assert found == {"q": list(range(16)), "k": list(range(16, 20)), "v": list(range(20, 24))}
    down = {layer + "mlp.dense_4h_to_h.weight": torch.ones(4, 6)}
    found, _ = split(save, layer + "mlp.dense_h_to_4h", (12, 4), model_type="chatglm", beside=down)
    assert found == {"gate": list(range(6)), "up": list(range(6, 12))}


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 4, "num_key_value_heads": 4},  # 12 rows a head of four do not make 16
        {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4},
        {"num_attention_heads": 3},
        {},
    ],
)
def test_heads_that_do_not_fit_leave_the_matrix_whole(save: Save, config: dict[str, int]) -> None:
    found, notes = split(save, "model.layers.0.self_attn.qkv_proj", (16, 8), model_type="phi3", **config)
    assert list(found) == ["qkv"]
    assert notes == (f"1 × attention.qkv {WHOLE}",)


def test_a_family_that_nobody_knows_leaves_the_matrix_whole(save: Save) -> None:
    config = {"model_type": "unheard_of", "num_attention_heads": 4, "num_key_value_heads": 2}
    found, notes = split(save, "model.layers.0.self_attn.qkv_proj", (16, 8), **config)
    assert list(found) == ["qkv"]
    assert notes == (f"1 × attention.qkv {WHOLE}",)


@pytest.mark.parametrize("columns", [False, True])
def test_the_matrix_that_leads_back_tells_how_gate_and_up_lie(save: Save, columns: bool) -> None:
    experts = "model.layers.0.mlp.experts."
    shapes = ((2, 6, 12), (2, 6, 6)) if columns else ((2, 12, 6), (2, 6, 6))
    stack = torch.arange(144, dtype=torch.float32).reshape(shapes[0])
    tensors = {experts + "gate_up_proj": stack, experts + "down_proj": torch.ones(shapes[1])}
    checkpoint = save(tensors, config={"model_type": "qwen3_vl_moe"}, split_fused=True)
    parts = {matrix.id: matrix.read(checkpoint.source) for matrix in checkpoint.matrices}
    whole = stack[1].numpy()
    gate, up = (whole[:, :6], whole[:, 6:]) if columns else (whole[:6], whole[6:])
    np.testing.assert_array_equal(parts["layers.0.experts.1.gate"], gate)
    np.testing.assert_array_equal(parts["layers.0.experts.1.up"], up)


def test_a_family_of_ones_own_names_what_is_not_known_and_says_how_it_is_fused(save: Save, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'model_types = ["mine"]\nroles."warp.coil" = "mlp.up"\nparts.bridge_of_ship = "audio"\n'
        '[[fused]]\nrole = "attention.qkv"\nparts = ["v", "k", "q"]\nlayout = "thirds"\n'
    )
    save(
        {
            "model.layers.0.warp.coil.weight": torch.ones(4, 4),
            "bridge_of_ship.layers.0.warp.coil.weight": torch.ones(4, 4),
            "model.layers.0.self_attn.qkv_proj.weight": torch.ones(12, 4),
        },
        config={"model_type": "mine"},
    )
    unknown = open_checkpoint(str(tmp_path)).unknown
    assert sorted(unknown) == ["bridge_of_ship.layers.0.warp.coil", "model.layers.0.warp.coil"]
    mine = open_checkpoint(str(tmp_path), family=read_family(file), split_fused=True)
    assert not mine.unknown
    assert {(matrix.id, matrix.role, matrix.part) for matrix in mine.matrices} == {
        ("layers.0.mlp.up", "mlp.up", "text"), ("audio.layers.0.mlp.up", "mlp.up", "audio"),
        *((f"layers.0.attention.{x}", f"attention.{x}", "text") for x in "qkv"),
    }  # fmt: skip
    (value,) = [matrix for matrix in mine.matrices if matrix.role == "attention.v"]
    assert value.rows is not None
    assert value.rows.offset == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("roles = 3", "'roles'"),
        ("[[fused]]\nrole = 'attention.qkv'\nparts = ['q', 'k']\nlayout = 'spiral'", "'fused.0.layout'"),
        ("modeltypes = ['x']", "'modeltypes'"),
        ("[roles]\n'a.b' = 'not a role'", "'roles.a.b'"),
        ("x = ", "not TOML"),
        ("[roles]\n\"a\x00b\" = 'mlp.up'", "not TOML"),
    ],
)
def test_a_broken_family_is_refused_by_the_key(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=named) as caught:
        read_family(file)
    assert caught.value.remedy == "docs/families.md shows how to write one"


def test_a_family_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such family"):
        read_family(tmp_path / "none.toml")


def test_the_families_shipped_contradict_one_another_nowhere() -> None:
    """A model type has one layout for each role, whichever file is read first."""
    layouts: dict[tuple[str, str, str | None], str] = {}
    for family in load_families():
        for fused in family.fused:
            for kind in family.model_types:
                assert layouts.setdefault((kind, fused.role, fused.part), fused.layout) == fused.layout
