"""Faults of names that were once found in published checkpoints, each as a small one: what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmtrap.checkpoint import Checkpoint

Save = Callable[..., Checkpoint]


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def named(*modules: str, shape: tuple[int, ...] = (16, 16)) -> dict[str, torch.Tensor]:
    return weights({f"{module}.weight": shape for module in modules})


def ids(checkpoint: Checkpoint) -> list[str]:
    return sorted(matrix.id for matrix in checkpoint.matrices)


def test_experts_without_mlp_in_their_name_are_read_as_stacks(save: Save) -> None:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (64, 16)}
    shapes |= {f"model.layers.0.self_attn.{x}_proj.weight": (16, 16) for x in "qkvo"}
    shapes |= {f"model.layers.0.mlp.{x}_proj.weight": (16, 16) for x in ("gate", "up", "down")}
    shapes |= {
        "model.layers.0.router.proj.weight": (8, 16),
        "model.layers.0.experts.gate_up_proj": (8, 48, 16),
        "model.layers.0.experts.down_proj": (8, 16, 24),
    }
    config = {"model_type": "gemma4_text", "tie_word_embeddings": True}
    checkpoint = save(weights(shapes), config=config)
    assert checkpoint.family == "gemma4_text"
    assert not checkpoint.skipped
    experts = [matrix for matrix in checkpoint.matrices if matrix.role.startswith("experts.")]
    assert {(m.id, m.expert, m.shape) for m in experts} == {
        (f"layers.0.experts.{e}.{part}", e, shape)
        for e in range(8)
        for part, shape in (("gate_up", (48, 16)), ("down", (16, 24)))
    }
    apart = {matrix.id: matrix.shape for matrix in save(weights(shapes), config=config, split_fused=True).matrices}
    assert apart["layers.0.experts.7.gate"] == apart["layers.0.experts.7.up"] == (24, 16)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        (
            "model.vision_tower.vision_towers.1.vision_tower.vision_model.encoder.layers.5.self_attn.q_proj",
            ("vision", 5, "attention.q"),
        ),
        ("model.qwen2_model.query_768", ("vision", None, "query_tokens")),
        ("model.vision_backbone.image_pooling_2d.wk", ("vision", None, "attention.k")),
        ("time_text_embed.timestep_embedder.linear_1", ("diffusion", None, "projection")),
        ("classifiers.4", ("text", None, "classifier")),
        ("mtp.layers.0.self_attn.q_proj", ("draft", 0, "attention.q")),
        ("model.mtp_layers.0.mlp.down_proj", ("draft", 0, "mlp.down")),
        ("mlp1.3", ("projector", None, "projector")),
    ],
)
def test_a_number_is_a_layers_only_where_it_counts_layers(
    save: Save, module: str, place: tuple[str, int | None, str]
) -> None:
    (matrix,) = save(named(module)).matrices
    assert (matrix.part, matrix.layer, matrix.role) == place


def test_towers_of_one_part_do_not_share_ids(save: Save) -> None:
    tower = "model.vision_tower.vision_towers.{}.vision_tower.vision_model.encoder.layers.5.self_attn.q_proj"
    assert ids(save(named(tower.format(0), tower.format(1)))) == [
        "vision.0.layers.5.attention.q",
        "vision.1.layers.5.attention.q",
    ]


@pytest.mark.parametrize("prefix", ["layoutlm", "ernie", "data2vec_text", "roc_bert", "bert"])
def test_what_is_called_dense_is_told_by_what_is_around_it(save: Save, prefix: str) -> None:
    layer = f"{prefix}.encoder.layer.1."
    words = [f"attention.self.{x}" for x in ("query", "key", "value")]
    modules = [layer + word for word in (*words, "attention.output.dense", "intermediate.dense", "output.dense")]
    assert ids(save(named(*modules))) == [f"layers.1.{role}" for role in (
        "attention.k", "attention.o", "attention.q", "attention.v", "mlp.down", "mlp.up")]  # fmt: skip


def test_a_text_only_tune_has_the_ids_of_the_text_in_its_base(save: Save, tmp_path_factory: Any) -> None:
    def text(prefix: str) -> list[str]:
        linear = [f"{prefix}layers.0.linear_attn.{x}" for x in ("in_proj_qkv", "in_proj_z", "in_proj_a", "out_proj")]
        full = [f"{prefix}layers.3.self_attn.{x}_proj" for x in "qkvo"]
        return [f"{prefix}embed_tokens", "lm_head", *linear, *full, f"{prefix}layers.0.mlp.down_proj"]

    vision = [f"model.visual.blocks.{b}.{x}" for b in range(4) for x in ("attn.qkv", "attn.proj", "mlp.linear_fc1")]
    tune = ids(save(named(*text("model.")), config={"model_type": "qwen3_5_text"}))
    base = save(named(*text("model.language_model."), *vision), config={"model_type": "qwen3_5"})
    assert [matrix.id for matrix in base.matrices if matrix.part == "text" and matrix.id in tune] == [
        matrix.id for matrix in base.matrices if matrix.part == "text"
    ]
    assert len(tune) == sum(matrix.part == "text" for matrix in base.matrices)
    assert {matrix.role for matrix in base.matrices if matrix.part == "vision"} == {
        "attention.qkv", "attention.o", "mlp.up",
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["llm.model.", "model.text_model.", "thinker.model.", "vlm.lang_model.", "a.b.c."])
def test_any_wrapper_leaves_a_decoders_ids(save: Save, prefix: str) -> None:
    modules = [f"{prefix}layers.{k}.{x}" for k in range(2) for x in ("self_attn.q_proj", "mlp.down_proj")]
    tower = [f"vpm.encoder.layers.{k}.self_attn.q_proj" for k in range(2)]
    checkpoint = save(named(*modules, *tower, f"{prefix}embed_tokens"), config={"model_type": "minicpmv"})
    assert checkpoint.family == "minicpmv"
    assert ids(checkpoint) == [
        "embedding", "layers.0.attention.q", "layers.0.mlp.down", "layers.1.attention.q", "layers.1.mlp.down",
        "vision.layers.0.attention.q", "vision.layers.1.attention.q",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "word", ["positionwise_feedforward", "position_wise_ffn", "pos_ffn", "positionwise_feed_forward"]
)
def test_a_position_wise_network_is_no_table_of_positions(save: Save, word: str) -> None:
    modules = [f"encoder.layers.{k}.{word}.{x}" for k in range(2) for x in ("w_1", "w_2")]
    checkpoint = save(named(*modules, "encoder.pos_embedding"))
    assert ids(checkpoint) == [
        "layers.0.mlp.down",
        "layers.0.mlp.up",
        "layers.1.mlp.down",
        "layers.1.mlp.up",
        "position",
    ]


def test_tables_are_named_as_such(save: Save) -> None:
    modules = ["transformer.wpe", "bert.embeddings.position_embeddings", "model.layers.0.mamba.A_log", "query_tokens"]
    modules += ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "model.visual.pos_embed"]
    roles = {matrix.tensor.removesuffix(".weight"): matrix.role for matrix in save(named(*modules)).matrices}
    assert {role.partition(".")[0] for role in roles.values()} == {"position", "ssm", "query_tokens"}
    assert roles["model.layers.0.mamba.A_log"] == "ssm.A_log"


def test_an_unknown_row_is_a_reward_only_where_the_configuration_says_so(save: Save) -> None:
    modules = [f"model.layers.{k}.mlp.down_proj" for k in range(2)]
    shapes = {f"{module}.weight": (16, 16) for module in modules} | {"model.early_exit_gate.weight": (1, 16)}

    def place(architecture: str) -> tuple[str, str]:
        checkpoint = save(weights(shapes), config={"model_type": "ouro", "architectures": [architecture]})
        (matrix,) = (matrix for matrix in checkpoint.matrices if matrix.shape[0] == 1)
        return matrix.part, matrix.role

    assert place("OuroForCausalLM") == ("text", "early_exit_gate")
    assert place("OuroForRewardModel") == ("value_head", "classifier")


def test_three_dimensions_under_experts_are_their_matrices_whatever_they_are_called(save: Save) -> None:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (64, 32)}
    shapes |= {
        "model.layers.0.mlp.experts.pos_embed": (4, 24, 32),
        "model.layers.0.mlp.experts.query_proj": (4, 32, 32),
    }
    found = [(m.id, m.role, m.expert) for m in save(weights(shapes)).matrices if m.layer == 0]
    assert found == [
        (f"layers.0.experts.{expert}.{leaf}", f"experts.{leaf}", expert)
        for leaf in ("pos_embed", "query")
        for expert in range(4)
    ]


@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 6, 32), (1, 1, 6, 8)])
def test_a_table_has_the_shape_that_it_has_without_sides_of_one(save: Save, shape: tuple[int, ...]) -> None:
    tensors = {"blocks.0.attn.qkv.weight": (48, 16), "patch_embed.proj.weight": (16, 3, 4, 4), "pos_embed": shape}
    (table,) = (matrix for matrix in save(weights(tensors)).matrices if matrix.role == "position")
    assert (table.id, table.shape) == ("vision.position", (6, shape[-1]))


def test_convolutions_of_sound_are_no_sight(save: Save) -> None:
    """A kernel has one side for sound and two for images, and is measured as a matrix either way."""
    layers = {f"encoder.layers.{k}.attention.q_proj.weight": (16, 16) for k in range(2)}
    sound = {f"feature_extractor.conv_layers.{k}.conv.weight": (16, 4, 10) for k in range(2)}
    images = {"stem.conv.weight": (16, 3, 4, 4)}
    assert {matrix.part for matrix in save(weights({**layers, **sound})).matrices} == {"audio"}
    assert {matrix.part for matrix in save(weights({**layers, **images})).matrices} == {"vision"}
    text = {"embed_tokens.weight": (64, 16)}
    assert {matrix.part for matrix in save(weights({**layers, **images, **text})).matrices} == {"text"}
