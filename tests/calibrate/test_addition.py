"""Modular addition: the quick recipe fits its sums first, learns the rest long after, and starts as it says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llmtrap.calibrate.data import task_data
from llmtrap.calibrate.networks import initial_weights, matrix_names
from llmtrap.calibrate.phases import label
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.training import train


@pytest.fixture
def sums() -> Recipe:
    return preset("modular-addition", "quick").arms[0]


def test_the_quick_sums_grok_after_they_are_fitted(sums: Recipe, folder: Path) -> None:
    # Half of the preset's steps, about five seconds: seeds 0 to 9 all had 0.99 of the other sums by then.
    recipe = sums.longer(3_000)
    data = task_data(recipe, 0)
    run = RunFolder(folder)
    run.claim(recipe, 0, data)
    points = [reached for reached in train(recipe, 0, data, run) if reached.checkpoint]
    fitted = [point.train_accuracy or 0.0 for point in points]
    known = [point.test_accuracy or 0.0 for point in points]
    found = label(fitted, known)
    assert found.members("pre-grok")
    assert found.members("grok")
    assert max(found.members("pre-grok")) < min(found.members("grok"))
    assert known[-1] >= 0.95
    assert not found.members("anti-grok")


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
