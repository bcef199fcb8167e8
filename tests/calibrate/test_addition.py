"""Modular addition: fits its sums first, learns the rest long after; and float32's rounding makes it collapse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from llmtrap.calibrate.data import task_data
from llmtrap.calibrate.diagnostics import diagnose
from llmtrap.calibrate.networks import initial_weights, matrix_names
from llmtrap.calibrate.phases import label
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.training import train


@pytest.fixture
def sums() -> Recipe:
    return preset("modular-addition", "quick").arms[0]


@pytest.mark.thorough
def test_the_quick_sums_grok_after_they_are_fitted(sums: Recipe, folder: Path) -> None:
    # A twelfth of the preset's steps: the trial seeds all knew the other sums by then.
    recipe = sums.longer(2_500)
    data = task_data(recipe, 0)
    run = RunFolder(folder)
    run.claim(recipe, 0, data)
    steps = [reached.step for reached in train(recipe, 0, data, run) if reached.checkpoint]
    seen = [diagnose(recipe, run.load_weights(step), data, 0) for step in steps]
    fitted, known = [it.train_accuracy for it in seen], [it.test_accuracy for it in seen]
    found = label(fitted, known)
    assert found.members("pre-grok")
    assert found.members("grok")
    assert max(found.members("pre-grok")) < min(found.members("grok"))
    assert known[-1] >= 0.95
    assert not found.members("anti-grok")


def test_its_arms_differ_by_the_switch_and_by_the_width_of_the_floats(sums: Recipe) -> None:
    arms = {arm.arm: arm for arm in preset("modular-addition", "quick").arms}
    assert arms["float64"] == replace(sums, arm="float64", purpose=arms["float64"].purpose, dtype="float64")
    kept = arms["decay-kept"]
    assert [sums.weight_decay_at(step) for step in (0, 3_999, 4_000, 29_999)] == [0.3, 0.3, 0.0, 0.0]
    assert {kept.weight_decay_at(step) for step in (0, 4_000, 29_999)} == {0.3}


def test_float32_drops_the_gradient_of_an_example_that_is_known_by_far() -> None:
    """What the arms rest on: past a margin of 17 the true class's gradient is 0, and they sum to 0 no more."""
    for dtype, lost in ((torch.float32, True), (torch.float64, False)):
        logits = torch.zeros(1, 59, dtype=dtype)
        logits[0, 7] = 22.0
        logits.requires_grad_()
        cross_entropy(logits, torch.tensor([7])).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        true, others = float(logits.grad[0, 7]), float(logits.grad[0].sum() - logits.grad[0, 7])
        assert others > 1e-9
        assert (true == 0.0) == lost
        assert (abs(true + others) < 1e-12) != lost


def test_its_weights_start_as_those_of_nanda(sums: Recipe) -> None:
    weights = initial_weights(sums, 0)
    for name in matrix_names(sums):
        width = sums.modulus if name == "unembed.weight" else sums.d_model
        assert float(weights[name].std()) == pytest.approx(1 / math.sqrt(width), rel=0.05), name
        # A normal distribution and not a uniform one: the fourth moment is 3 squared variances, not 1.8.
        kurtosis = float((weights[name] ** 4).mean() / weights[name].var() ** 2)
        assert kurtosis == pytest.approx(3.0, abs=0.35), name
    assert not weights["fc1.bias"].any()
    assert not weights["fc2.bias"].any()
