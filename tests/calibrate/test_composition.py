"""Facts made of two others: which are trained on, which are not, and a network that is the GPT-2 that it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from llmtrap.calibrate.cost import operations, weights
from llmtrap.calibrate.data import TaskData, task_data
from llmtrap.calibrate.diagnostics import diagnose
from llmtrap.calibrate.networks import forward, initial_weights
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.steppers import AutogradStepper, fresh_state
from llmtrap.calibrate.training import Batches


@pytest.fixture
def recipe() -> Recipe:
    return preset("composition", "quick").arms[0]


def rows(data: TaskData, part: str) -> list[tuple[int, ...]]:
    inputs, labels = getattr(data, f"{part}_inputs"), getattr(data, f"{part}_labels")
    return [(*map(int, line), int(answer)) for line, answer in zip(inputs, labels, strict=True)]


def test_inferred_facts_follow_from_two_and_those_set_apart_are_never_trained_on(recipe: Recipe) -> None:
    data = task_data(recipe, 0)
    padding = recipe.entities + recipe.relations
    train = rows(data, "train")
    atomic = {(head, relation): tail for head, relation, last, tail in train if last == padding}
    inferred = {line for line in train if line[2] != padding}
    assert len(atomic) == recipe.entities * recipe.degree
    assert len(inferred) == len(train) - len(atomic) == round(recipe.inferred_ratio * 0.95 * len(atomic))
    used: set[tuple[int, int]] = set()
    for head, first, second, tail in inferred:
        assert atomic[atomic[head, first], second] == tail
        used |= {(head, first), (atomic[head, first], second)}
    assert len(used) <= 0.95 * len(atomic)
    test, far = rows(data, "test"), rows(data, "far")
    assert len(test) == 500
    assert not set(test) & inferred
    assert all(atomic[atomic[head, first], second] == tail for head, first, second, tail in (*test, *far))
    assert far
    assert not any({(head, first), (atomic[head, first], second)} & used for head, first, second, _ in far)
    assert torch.equal(task_data(recipe, 0).train_inputs, data.train_inputs)
    assert not torch.equal(task_data(recipe, 1).train_inputs, data.train_inputs)


def test_the_shortcut_is_the_full_attention(recipe: Recipe) -> None:
    small = replace(
        recipe, entities=9, relations=4, degree=3, d_model=16, heads=2, d_mlp=24, gelu=True, dtype="float64"
    )
    data = task_data(replace(small, test_size=5), 0)
    start = {name: 20 * weight for name, weight in initial_weights(small, 0).items()}
    found, hidden = forward(small, start, data.train_inputs)
    assert torch.allclose(found, _whole(small, start, data.train_inputs), atol=1e-12)
    assert len(hidden) == small.layers


def _whole(recipe: Recipe, weights: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Every position of every layer, with PyTorch's own causal attention, and only then the one that is read."""
    x = weights["embed.weight"][tokens] + weights["position.weight"]

    def normed(name: str, of: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(of, (recipe.d_model,), 1 + weights[f"{name}.gain"], weights[f"{name}.bias"])

    for layer in range(recipe.layers):
        block = f"layers.{layer}"
        inner = normed(f"{block}.norm1", x)
        q, k, v = (
            (inner @ weights[f"{block}.attn.{part}.weight"].T).view(len(tokens), 3, recipe.heads, -1).transpose(1, 2)
            for part in "qkv"
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + mixed.reshape(len(tokens), 3, -1) @ weights[f"{block}.attn.out.weight"].T
        inner = normed(f"{block}.norm2", x) @ weights[f"{block}.fc1.weight"].T + weights[f"{block}.fc1.bias"]
        inner = functional.gelu(inner, approximate="tanh")
        x = x + inner @ weights[f"{block}.fc2.weight"].T + weights[f"{block}.fc2.bias"]
    read = torch.where(tokens[:, 2] == recipe.entities + recipe.relations, 1, 2)
    last: torch.Tensor = normed("norm", x)[torch.arange(len(tokens)), read]
    return last @ weights["embed.weight"].T


def test_a_small_one_learns_its_facts_and_reports_those_far_away(recipe: Recipe) -> None:
    small = replace(recipe, entities=12, relations=5, degree=4, d_model=32, d_mlp=64, batch=64, test_size=20)
    small = replace(small, inferred_ratio=2.0, warmup=20)
    data = task_data(small, 3)
    stepper = AutogradStepper(small, data, fresh_state(initial_weights(small, 3)), torch.device("cpu"))
    batches = Batches(small, 3, len(data.train_labels))
    for step in range(400):
        stepper.step(*batches.next(stepper), step)
    seen = diagnose(small, stepper.weights(), data, 3)
    assert seen.train_accuracy > 0.9
    assert seen.far_accuracy is not None
    assert 0 <= seen.far_accuracy <= 1


def test_the_cost_of_the_papers_sizes_is_the_known_one() -> None:
    arm = preset("composition", "paper").arms[0]
    # GPT-2's eight layers of 12 · 768² weights each, and its embeddings of 2,200 tokens.
    assert weights(arm) == 8 * 12 * 768**2 + 2_200 * 768
    assert operations(arm) == pytest.approx(6 * weights(arm) * 3 * 512 * 1.5e6)
