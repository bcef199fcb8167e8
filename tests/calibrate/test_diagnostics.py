"""Each diagnostic against its formula written out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from llmtrap.ablation.components import first_shuffle
from llmtrap.ablation.measures import jensen_shannon
from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.diagnostics import (
    absolute_weight_entropy,
    circuit_complexity,
    diagnose,
    gaussian_probes,
    l2_norm,
    largest_share,
    masked,
)
from llmtrap.calibrate.measure_checkpoint import analyse_matrix, measure
from llmtrap.calibrate.networks import initial_weights
from llmtrap.calibrate.prototypes import nearest
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.trap_ablation import AblationSetup, ablate_layer, largest_entries, trap_components
from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.shuffle import generator_for, shuffled


def test_norm_and_entropy() -> None:
    first, second = torch.tensor([[3.0, 0.0]]), torch.tensor([[-4.0]])
    assert l2_norm([first, second]) == 5.0
    matrix = torch.tensor([[0.5, -2.0], [0.0, 1.0]])
    assert absolute_weight_entropy(matrix) == pytest.approx(-(0.5 * math.log(0.5) + 2 * math.log(2)))


def test_circuit_complexity_is_the_summed_divergence() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 7, 4))
    expected = rel_entr(softmax(a, axis=1), softmax(b, axis=1)).sum()
    assert circuit_complexity(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected)
    assert circuit_complexity(torch.from_numpy(a), torch.from_numpy(a)) == pytest.approx(0.0, abs=1e-12)


def test_the_mask_takes_a_fixed_tenth() -> None:
    weights = {"w": torch.ones(200, 200), "b": torch.ones(5)}
    once, again, other = (masked(weights, ["w"], seed) for seed in (0, 0, 1))
    assert torch.equal(once["w"], again["w"])
    assert not torch.equal(once["w"], other["w"])
    assert float((once["w"] == 0).double().mean()) == pytest.approx(0.1, abs=0.01)
    assert once["b"] is weights["b"]


def test_jensen_shannon_is_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 9, 5)) * 3
    expected = jensenshannon(softmax(a, axis=1), softmax(b, axis=1), axis=1) ** 2
    np.testing.assert_allclose(jensen_shannon(torch.from_numpy(a), torch.from_numpy(b)).numpy(), expected, atol=1e-12)
    apart = jensen_shannon(torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]]))
    assert float(apart) == pytest.approx(math.log(2))
    underflowing = torch.tensor([[900.0, 0.0, 1.0]])
    assert float(jensen_shannon(underflowing, underflowing + torch.tensor([0.0, 1.0, 0.0]))) == 0.0


def test_probes_have_the_data_s_mean_and_a_multiple_of_its_deviation(tiny: Recipe, digits: TaskData) -> None:
    probes = gaussian_probes(tiny, digits, 0, 2.0)
    assert probes.shape == (2000, 64)
    assert float(probes.mean()) == pytest.approx(float(digits.train_inputs.mean()), abs=0.01)
    assert float(probes.std()) == pytest.approx(2 * float(digits.train_inputs.std()), rel=0.02)
    assert largest_share(torch.eye(3)[[0, 1, 1, 1]]) == 0.75


def test_diagnose_by_hand(tiny: Recipe, digits: TaskData) -> None:
    weights = initial_weights(tiny, 0)
    seen = diagnose(tiny, weights, digits, 0)
    x = digits.train_inputs.double().numpy()
    layers = []
    for number in (1, 2):
        x = np.maximum(
            x @ weights[f"fc{number}.weight"].double().numpy().T + weights[f"fc{number}.bias"].double().numpy(), 0
        )
        layers.append(x)
    z = x @ weights["fc3.weight"].double().numpy().T + weights["fc3.bias"].double().numpy()
    labels = digits.train_labels.numpy()
    assert seen.train_accuracy == pytest.approx((z.argmax(1) == labels).mean())
    assert seen.train_loss == pytest.approx(((z - np.eye(10)[labels]) ** 2).mean(), rel=1e-5)
    assert seen.sparsity == pytest.approx([(layer <= 0).mean() for layer in layers], abs=1e-4)
    assert seen.dead == tuple(int((layer <= 0).all(axis=0).sum()) for layer in layers)


def test_measures_are_the_audit_s_own(tiny: Recipe, digits: TaskData) -> None:
    weights = initial_weights(tiny, 0)
    weights["fc1.weight"][7, 9] = 80.0
    found = measure(tiny, weights, digits, 5, 100, 1.5)
    own = analyse(weights["fc1.weight"].numpy(), AnalysisSettings(traps="measure", seed=5), matrix_id="fc1")
    layer = found.layers[0]
    assert own.traps is not None
    assert own.esd is not None
    assert own.esd.fit is not None
    assert (layer.traps.count, layer.traps.centred, layer.entries) == (own.traps.count, own.traps.centred, 1)
    assert layer.alpha.value == own.esd.fit.alpha
    assert layer.spectrum is not None
    assert layer.spectrum.frobenius_norm == pytest.approx(float(weights["fc1.weight"].norm()), rel=1e-5)
    # One entry of size w makes the outlier (1 + θ²)(c + θ²)/θ² of Benaych-Georges and Nadakuditi.
    n, m = 64, 60
    strength = (80.0 - own.traps.bulk.mean) ** 2 / (own.traps.bulk.variance * n)
    outlier = (1 + strength) * (m / n + strength) / strength / (1 + math.sqrt(m / n)) ** 2
    assert layer.edge_ratio == pytest.approx(outlier, rel=0.05)
    assert found.step == 100


def test_a_diverged_network_is_no_measurement() -> None:
    with pytest.raises(FloatingPointError, match=r"fc1\.weight.*diverged"):
        analyse_matrix("fc1.weight", np.array([[1.0, np.nan]] * 3), 0)


def test_a_component_is_taken_back_to_where_its_entry_was() -> None:
    matrix = np.random.default_rng(2).standard_normal((90, 60)).astype(np.float32)
    matrix[11, 23] = 60.0
    shuffle = first_shuffle("fc1", (90, 60), 4)
    audit = shuffled(matrix, generator_for(4, "fc1", 0)).reshape(90, 60)
    np.testing.assert_array_equal(shuffle.apply(matrix.astype(np.float64)), audit)
    np.testing.assert_array_equal(shuffle.undo(shuffle.apply(matrix.astype(np.float64))), matrix)
    _, traps = analyse_matrix("fc1.weight", matrix, 4)
    one, together, centred = trap_components("fc1.weight", matrix, traps, 4)
    assert (one.cause, together.trap, centred.cause) == ("centred", "all 1", "centred")
    assert np.unravel_index(np.abs(one.matrix).argmax(), matrix.shape) == (11, 23)
    assert abs(matrix[11, 23] - one.matrix[11, 23]) < 10
    assert np.linalg.norm(one.matrix) == pytest.approx(one.singular[0])
    assert np.argwhere(largest_entries(matrix, 0.0, 1.0)).tolist() == [[11, 23]]


def test_a_mean_is_named_and_controls_have_its_norm(tiny: Recipe, digits: TaskData) -> None:
    recipe = replace(tiny, dtype="float64")
    weights = initial_weights(recipe, 0)
    weights["fc1.weight"] += 1.5
    rows = ablate_layer(AblationSetup(recipe, weights, digits_in(digits), 0), "fc1.weight", "grok", 10)
    assert {row.cause for row in rows} == {"mean_shift", "all"}
    assert [row.action for row in rows][:2] == ["removed", "replaced by noise"]
    assert sum(row.action.startswith("control") for row in rows) == len(rows) // 2
    assert len({round(row.norm, 6) for row in rows}) == 1
    removed = rows[0]
    assert removed.jsd["test images"] > 0.01
    assert set(removed.jsd) == {"Gaussian × 0.5", "Gaussian × 1", "Gaussian × 2", "Gaussian × 4", "test images"}
    weighted = np.bincount(digits.test_labels.numpy()) / len(digits.test_labels)
    assert float(weighted @ np.array(removed.class_change)) == pytest.approx(removed.test_change)


def digits_in(data: TaskData) -> TaskData:
    return replace(data, train_inputs=data.train_inputs.double(), test_inputs=data.test_inputs.double())


def test_nearest_finds_the_image_itself_and_its_negative() -> None:
    images = np.random.default_rng(0).random((20, 36))
    found = nearest(np.stack([5 - 3 * images[4], np.ones(36)]), images)
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-9)


def test_the_network_file_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "steps").mkdir()
    folder.save_weights(10, {"w": torch.arange(6.0).view(2, 3)}, 1.25)
    assert folder.seconds_at(10) == 1.25
    assert torch.equal(folder.load_weights(10)["w"], torch.arange(6.0).view(2, 3))
