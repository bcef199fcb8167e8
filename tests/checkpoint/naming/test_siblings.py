"""Words that tell each other's meaning only with the shapes of their matrices."""

from __future__ import annotations

import pytest

from llmtrap.checkpoint.naming import Module, load_grammar, name_places

WIDE, NARROW = (32, 8), (8, 32)


def roles(names: dict[str, tuple[int, ...]]) -> list[str]:
    places = name_places([Module(name, shape) for name, shape in names.items()], load_grammar(), {})
    return [place.role for place in places]


@pytest.mark.parametrize("module", ["transformer.h.0.mlp.swiglu", "visual.blocks.0.mlp"])
def test_w2_is_the_way_in_where_it_has_the_shape_of_w1(module: str) -> None:
    """EVA-02 and xFormers' SwiGLU: down is w3, which Llama's is w2."""
    names = {f"{module}.{word}": shape for word, shape in zip(("w1", "w2", "w3"), (WIDE, WIDE, NARROW), strict=True)}
    assert roles(names) == ["mlp.gate", "mlp.up", "mlp.down"]
    names = {f"{module}.{word}": shape for word, shape in zip(("w1", "w2", "w3"), (WIDE, NARROW, WIDE), strict=True)}
    assert roles(names) == ["mlp.gate", "mlp.down", "mlp.up"]


def test_the_shapes_of_a_stack_of_experts_tell_too() -> None:
    shapes = {"w1": (4, *WIDE), "w2": (4, *WIDE), "w3": (4, *NARROW)}
    names = {f"model.layers.0.moe.experts.{word}": shape for word, shape in shapes.items()}
    assert roles(names) == ["experts.gate", "experts.up", "experts.down"]


def test_three_layers_of_a_network_of_its_own_are_no_gated_mlp() -> None:
    """OpenVLA's projector of three layers, beside the gated MLP of AIMv2."""
    gated = {"trunk.blocks.0.mlp.fc1": WIDE, "trunk.blocks.0.mlp.fc2": NARROW, "trunk.blocks.0.mlp.fc3": WIDE}
    assert roles(gated) == ["mlp.gate", "mlp.down", "mlp.up"]
    for last in ((8, 8), (32, 32)):  # as its first, and not
        names = {"projector.fc1": (8, 8), "projector.fc2": (8, 8), "projector.fc3": last}
        assert roles(names) == ["mlp.up", "mlp.down", "projector"]
