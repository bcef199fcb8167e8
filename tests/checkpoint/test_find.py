"""What is a matrix and what is skipped; names where no table fits; ids that never clash; quantisations refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.families import load_families
from llmtrap.checkpoint.naming import load_grammar
from llmtrap.checkpoint.tables import is_table
from llmtrap.errors import CheckpointError, UnsupportedError

Save = Callable[..., Checkpoint]


def test_every_tensor_is_a_matrix_or_skipped_with_its_reason(save: Save) -> None:
    checkpoint = save(
        {
            "net.4.conv.weight": torch.ones(2, 3, 5, 5),
            "net.4.mixer.weight": torch.ones(2, 3, 5),
            "net.4.norm.weight": torch.ones(7),
            "net.4.scale": torch.tensor(1.0),
            "net.4.empty": torch.ones(0, 4),
            "net.4.ids": torch.arange(6).reshape(2, 3),
            "net.4.mask": torch.ones(2, 2, dtype=torch.bool),
            "net.4.stack_bias": torch.ones(3, 4),
            "net.4.lost.weight_scale": torch.ones(3, 1),
            "net.4.phase": torch.ones(2, 2, dtype=torch.complex64),
            "net.4.linear.weight": torch.ones(3, 4),
            "net.4.experts.up": torch.ones(2, 3, 4),
            "row": torch.ones(1, 9),
        }
    )
    assert checkpoint.family == "generic"
    named = [(matrix.id, matrix.layer, matrix.role, matrix.expert, matrix.shape) for matrix in checkpoint.matrices]
    assert sorted(named) == [
        ("convolution.4", None, "convolution", None, (2, 75)),
        ("experts.0.up.4", None, "experts.up", 0, (3, 4)),
        ("experts.1.up.4", None, "experts.up", 1, (3, 4)),
        ("linear.4", None, "linear", None, (3, 4)),
        ("row", None, "row", None, (1, 9)),
        ("ssm.4", None, "ssm", None, (2, 15)),
    ]
    assert {item.tensor: item.reason for item in checkpoint.skipped} == {
        "net.4.norm.weight": "one-dimensional (a bias, a norm or another vector)",
        "net.4.scale": "scalar",
        "net.4.empty": "empty tensor",
        "net.4.ids": "integer buffer (I64)",
        "net.4.mask": "integer buffer (BOOL)",
        "net.4.stack_bias": "a stack of biases",
        "net.4.lost.weight_scale": "scales, and no quantised weight that they belong to",
        "net.4.phase": "complex numbers (C64)",
    }


def test_a_module_outside_the_tables_still_has_part_and_layer(save: Save) -> None:
    checkpoint = save(
        {
            "model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2),
            "vision_tower.blocks.3.fc.weight": torch.ones(2, 2),
        },
        config={"model_type": "llama"},
    )
    named = {matrix.id: (matrix.layer, matrix.role) for matrix in checkpoint.matrices}
    assert named == {"layers.0.attention.q": (0, "attention.q"), "vision.layers.3.fc": (3, "fc")}


def test_ids_stay_unique_when_two_modules_map_to_one(save: Save) -> None:
    checkpoint = save(
        {
            "lm_head.weight": torch.ones(2, 2),
            "model.lm_head.weight": torch.ones(2, 2),
            "model.lm_head": torch.ones(2, 2),
            "model.layers.0.mlp.up_proj.weight": torch.ones(2, 2),
        },
        config={"model_type": "llama"},
    )
    ids = {matrix.tensor: matrix.id for matrix in checkpoint.matrices}
    assert len(set(ids.values())) == 4
    assert ids["lm_head.weight"] == "unembedding"
    assert {ids["model.lm_head.weight"], ids["model.lm_head"]} == {"model.lm_head", "lm_head"}


@pytest.mark.parametrize(
    ("config", "aliases"),
    [
        ({"tie_word_embeddings": True}, ("unembedding",)),
        ({"text_config": {"tie_word_embeddings": True, "model_type": "gemma3_text"}}, ("unembedding",)),
        ({"model_type": "gemma"}, ("unembedding",)),
        ({"tie_word_embeddings": False}, ()),
        ({"model_type": "gemma", "tie_word_embeddings": False}, ()),
        ({"tie_word_embeddings": "yes"}, ()),
        ({"tie_word_embeddings": True, "architectures": ["LlamaModel"]}, ()),
        ({"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}, ("unembedding",)),
        ({}, ()),
    ],
)
def test_a_tied_embedding_goes_by_both_names(save: Save, config: dict[str, Any], aliases: tuple[str, ...]) -> None:
    tensors = {"model.embed_tokens.weight": torch.ones(4, 2), "model.layers.0.mlp.up_proj.weight": torch.ones(2, 2)}
    (matrix,) = [matrix for matrix in save(tensors, config=config).matrices if matrix.id == "embedding"]
    assert matrix.aliases == aliases


def test_an_embedding_beside_its_own_unembedding_is_not_tied(save: Save) -> None:
    tensors = {"model.embed_tokens.weight": torch.ones(4, 2), "lm_head.weight": torch.zeros(4, 2)}
    assert not any(matrix.aliases for matrix in save(tensors, config={"tie_word_embeddings": True}).matrices)


BYTES = torch.ones(8, 8, dtype=torch.uint8)
WORDS = torch.ones(2, 2, dtype=torch.int32)
SIGNED = torch.ones(8, 8, dtype=torch.int8)


def stated(method: str, **settings: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **settings}}


@pytest.mark.parametrize(
    ("tensors", "config", "named"),
    [
        ({"l.0.q.qweight": WORDS}, {}, "GPTQ or AWQ in a packing"),
        ({"l.0.q.weight": BYTES, "l.0.q.weight.absmax": torch.ones(2)}, {}, "bitsandbytes, incomplete"),
        ({"l.0.q.weight": SIGNED}, {}, "weights packed as I8"),
        ({"l.0.q.weight": torch.ones(8, 8, dtype=torch.int32)}, {}, "weights packed as I32"),
        ({"l.0.q.W_q": BYTES, "l.0.q.scale": torch.ones(8, 1), "l.0.q.zero": torch.ones(8, 1)}, {}, "HQQ, incomplete"),
        ({"l.0.q._weight_qdata": SIGNED, "l.0.q._weight_scale": torch.ones(8, 1)}, {}, "torchao, of another kind"),
        ({"l.0.q.weight._data._data": BYTES}, stated("quanto"), "without their _scale"),
        ({"l.0.q.trellis": torch.ones(2, 2, 64, dtype=torch.int16)}, {}, "EXL3 is not read: its trellis is stored"),
        ({"l.0.q.q_weight": WORDS}, {}, "EXL2"),
        ({"l.0.q.codes": SIGNED, "l.0.q.codebooks": torch.ones(1, 256, 1, 8)}, {}, "AQLM"),
        ({"l.0.q.centroids": torch.ones(2, 8)}, {}, "VPTQ"),
        ({"l.0.q.dense_weights": WORDS}, {}, "SpQR"),
        ({"l.0.q.Qidxs": WORDS}, {}, r"QuIP#"),
        ({"l.0.q.bitmask": BYTES}, {}, "2:4 sparse"),
        ({"l.0.q.weight_orig": torch.ones(8, 8), "l.0.q.weight_mask": torch.ones(8, 8)}, {}, "a pruning that is"),
        ({"l.0.q.codes": SIGNED, "l.0.q.multiplier": torch.ones(8, 1)}, {}, "multiplier .* fits the scales"),
        *(
            ({"l.0.q.weight": torch.ones(2, 2)}, stated(method), name)
            for method, name in [
                ("aqlm", "AQLM"), ("vptq", "VPTQ"), ("higgs", "HIGGS"), ("spqr", "SpQR"), ("exl3", "EXL3"),
                ("marlin", "Marlin"), ("gptq_marlin_24", "Marlin"), ("eetq", "EETQ"), ("bitnet", "BitNet"),
                ("fp_quant", "FP-Quant"), ("nvfp4", "swizzled"), ("quark", "Quark"), ("other", "'other' is not one"),
            ]
        ),
        (
            {"l.0.q.weight": torch.ones(2, 2)},
            {"text_config": stated("bitblas")},
            "BitBLAS",
        ),
        (
            {"l.0.q.weight": torch.ones(2, 2)},
            stated("compressed-tensors", sparsity_config={"format": "sparse-24-bitmask"}),
            "sparse-24-bitmask",
        ),
    ],
)  # fmt: skip
def test_a_quantisation_that_is_not_read_is_named_with_what_is(
    save: Save, tensors: dict[str, torch.Tensor], config: dict[str, Any], named: str
) -> None:
    with pytest.raises((UnsupportedError, CheckpointError), match=named) as caught:
        save(tensors, config=config)
    assert caught.value.remedy
    assert caught.value.file in ("model.safetensors", "config.json")


@pytest.mark.parametrize("name", ["descale", "weight_factors", "weight.amplitude"])
@pytest.mark.parametrize("shape", [(), (1,), (64,), (64, 1), (1, 32), (2, 1), (64, 2)])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_codes_are_not_measured_beside_a_tensor_that_must_be_their_scale(
    save: Save, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(UnsupportedError, match=r"fits the scales|packed as I8") as caught:
        save({"l.0.q.weight": torch.ones(64, 32).to(dtype), f"l.0.q.{name}": torch.ones(shape)})
    assert caught.value.tensor == "l.0.q.weight"


def test_what_lies_beside_fp8_weights_for_other_reasons_is_no_scale(save: Save) -> None:
    names = ("bias", "input_scale", "k_scale", "input_global_scale")
    beside = {f"l.0.q.{name}": torch.ones(64 if name == "bias" else 1) for name in names}
    checkpoint = save({"l.0.q.weight": torch.ones(64, 32).to(torch.float8_e4m3fn), **beside})
    assert [matrix.encoding for matrix in checkpoint.matrices] == ["F8_E4M3"]


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8"},
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        {"quant_method": 7},
        {},
    ],
)
def test_a_quantisation_that_is_read_is_let_through(save: Save, settings: dict[str, Any]) -> None:
    assert save({"l.0.q.weight": torch.ones(2, 2)}, config={"quantization_config": settings}).matrices


def test_the_tables_are_sound() -> None:
    grammar = load_grammar()
    roles = {f"{group}.{leaf}" for group, leaf in grammar.anywhere.values()}
    assert {"attention.q", "mlp.up", "linear_attention.qkvz", "ssm.x"} <= roles
    for said in grammar.sets:
        assert set(said.values()) <= {"gate", "up", "down", "gate_up", "residual"}
    for family in load_families():
        for fused in family.fused:
            assert fused.role.rpartition(".")[2] in ("qkv", "gate_up")


def test_names_with_digits_beyond_any_number_are_only_names(save: Save) -> None:
    digits = "9" * 900
    checkpoint = save(
        {f"model.layers.{digits}.mlp.up_proj.weight": torch.ones(2, 2), f"x.{digits}.w": torch.ones(2, 2)},
        config={"model_type": "llama"},
    )
    assert [matrix.layer for matrix in checkpoint.matrices] == [None, None]


def test_maps_in_a_module_that_has_the_name_of_a_table_are_no_tables(save: Save) -> None:
    square, layer = torch.ones(8, 8), "model.decoder.layers"
    maps = {
        "model.decoder.query_scale.layers.0.weight": square.clone(),
        "model.decoder.query_scale.layers.1.weight": square.clone(),
        "model.decoder.query_pos_head.layers.0.weight": square.clone(),
        "model.pos_emb.linear_1.weight": square.clone(),
        "model.query_embed.linear.weight": square.clone(),
        f"{layer}.0.latents.proj.weight": square.clone(),
        f"{layer}.0.position_mixer.weight": square.clone(),
        f"{layer}.0.pos_experts.weight": torch.ones(3, 8, 8),
    }
    tables = {
        "model.embed_positions.weight": torch.ones(20, 8),
        "model.query_tokens": torch.ones(4, 8),
        "model.decoder.position_embedding.weight": torch.ones(9, 8),
    }
    around = {f"{layer}.{k}.self_attn.q_proj.weight": square.clone() for k in (0, 1)}
    matrices = save({**maps, **tables, **around}).matrices
    assert {matrix.tensor for matrix in matrices if is_table(matrix)} == set(tables)
    experts = [matrix for matrix in matrices if matrix.tensor.endswith("pos_experts.weight")]
    assert [(matrix.layer, matrix.expert) for matrix in experts] == [(0, 0), (0, 1), (0, 2)]
