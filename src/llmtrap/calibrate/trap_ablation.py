"""Take a trap out of a network, or put noise in its place, and see what changes; with controls of the same norm.

The score of arXiv 2605.12394, section 6: J = mean over probes of the Jensen–Shannon divergence between the outputs with
and without the trap, at T = 1. It tells active from inactive, not harmful from harmless, and compares traps of one
network only. One scale of probes can saturate a network, so there are several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmtrap.ablation.measures import jensen_shannon
from llmtrap.calibrate.components import Component, largest_entries, trap_components
from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.diagnostics import PROBE_SCALES, gaussian_probes
from llmtrap.calibrate.document import Ablation
from llmtrap.calibrate.measure_checkpoint import analyse_matrix
from llmtrap.calibrate.networks import forward
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import numpy_stream

Floats = NDArray[np.float64]
_SINGLES = 3
_DRAWS = 3


@dataclass(frozen=True)
class _Outcome:
    train: float
    test: float
    by_class: Floats
    jsd: dict[str, float]


class AblationSetup:
    """One checkpoint on the bench: what it does as it is, and what it does with one matrix replaced."""

    def __init__(self, recipe: Recipe, weights: Mapping[str, Tensor], data: TaskData, seed: int):
        self.recipe, self.weights, self.data, self.seed = recipe, weights, data, seed
        if not recipe.images:
            self._probes = {"test examples": gaussian_probes(recipe, data, seed, 1.0)}
        else:
            self._probes = {
                f"Gaussian × {scale:g}": gaussian_probes(recipe, data, seed, scale) for scale in PROBE_SCALES
            }
            self._probes["test images"] = data.test_inputs
        self._answers = {name: self._logits(weights, probes) for name, probes in self._probes.items()}
        self.whole = self._outcome(weights)

    @torch.no_grad()
    def _logits(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return forward(self.recipe, weights, inputs)[0]

    def _outcome(self, weights: Mapping[str, Tensor]) -> _Outcome:
        data = self.data
        train = self._logits(weights, data.train_inputs).argmax(1) == data.train_labels
        right = (self._logits(weights, data.test_inputs).argmax(1) == data.test_labels).numpy()
        labels = data.test_labels.numpy()
        classes = int(labels.max()) + 1 if self.recipe.images else 0
        by_class = np.array([right[labels == k].mean() for k in range(classes)])
        jsd = {
            name: float(jensen_shannon(answer.double(), self._logits(weights, self._probes[name]).double()).mean())
            for name, answer in self._answers.items()
        }
        return _Outcome(float(train.double().mean()), float(right.mean()), by_class, jsd)

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Test examples by true class (rows) and predicted class (columns)."""
        predicted = self._logits(self.weights, self.data.test_inputs).argmax(1).numpy()
        classes = self.recipe.widths[-1]
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (self.data.test_labels.numpy(), predicted), 1)
        return tuple(tuple(int(count) for count in row) for row in table)

    def with_matrix(self, name: str, matrix: Floats) -> _Outcome:
        """What the network does when this matrix takes the place of its own."""
        changed = dict(self.weights)
        changed[name] = torch.from_numpy(matrix).to(self.weights[name].dtype)
        return self._outcome(changed)


def ablate_layer(laboratory: AblationSetup, name: str, phase: str, step: int) -> tuple[Ablation, ...]:
    """Every intervention on one matrix: its largest traps one by one, all, the centred ones, the huge entries."""
    matrix = laboratory.weights[name].double().numpy()
    stored = laboratory.weights[name].numpy()
    random = numpy_stream(laboratory.seed, "ablation")
    rows: list[Ablation] = []

    def row(cause: str, trap: str, action: str, norm: float, outcomes: list[_Outcome]) -> None:
        before = laboratory.whole
        train = float(np.mean([outcome.train for outcome in outcomes]))
        test = float(np.mean([outcome.test for outcome in outcomes]))
        change = np.mean([outcome.by_class for outcome in outcomes], axis=0) - before.by_class
        rows.append(
            Ablation(
                phase=phase,
                step=step,
                layer=name.removesuffix(".weight"),
                cause=cause,
                trap=trap,
                action=action,
                norm=norm,
                train_accuracy=train,
                test_accuracy=test,
                train_change=train - before.train,
                test_change=test - before.test,
                jsd={probe: float(np.mean([o.jsd[probe] for o in outcomes])) for probe in before.jsd},
                class_change=tuple(float(value) for value in change),
            )
        )

    for component in trap_components(name, stored, laboratory.seed, _SINGLES):
        draws = _DRAWS if component.trap.startswith("all") else 1
        for action, changed in _interventions(matrix, component, draws, random):
            outcomes = [laboratory.with_matrix(name, other) for other in changed]
            row(component.cause, component.trap, action, component.norm, outcomes)
    traps = analyse_matrix(name, stored, laboratory.seed).traps
    if traps is not None:
        huge = largest_entries(matrix, traps.bulk.mean, traps.bulk.deviation)
        if count := int(huge.sum()):
            cleared = np.where(huge, traps.bulk.mean, matrix)
            norm = float(np.linalg.norm(cleared - matrix))
            which = f"{count} entries"
            row("entries", which, "set to the mean", norm, [laboratory.with_matrix(name, cleared)])
            others = []
            for _ in range(_DRAWS):
                chosen = random.permutation(huge.reshape(-1)).reshape(huge.shape)
                others.append(laboratory.with_matrix(name, np.where(chosen, traps.bulk.mean, matrix)))
            row("entries", which, "control: as many random entries set to the mean", norm, others)
    return tuple(rows)


def _interventions(
    matrix: Floats, component: Component, draws: int, random: np.random.Generator
) -> Iterator[tuple[str, list[Floats]]]:
    """The matrix with the component removed or replaced, and with something of the same norm removed instead."""
    part = component.matrix
    yield "removed", [matrix - part]
    yield "replaced by noise", [matrix - part + _noise(part, random) for _ in range(draws)]
    shuffled = [random.permutation(part.reshape(-1)).reshape(part.shape) for _ in range(draws)]
    yield "control: its entries at random places", [matrix - other for other in shuffled]
    directions = [_random_directions(part.shape, component.singular, random) for _ in range(draws)]
    yield "control: random directions", [matrix - other for other in directions]


def _noise(part: Floats, random: np.random.Generator) -> Floats:
    """Gaussian entries of the same Frobenius norm."""
    noise = random.standard_normal(part.shape)
    return noise * (np.linalg.norm(part) / np.linalg.norm(noise))


def _random_directions(shape: tuple[int, ...], singular: tuple[float, ...], random: np.random.Generator) -> Floats:
    """A matrix of the same singular values along random orthonormal directions."""
    left, _ = np.linalg.qr(random.standard_normal((shape[0], len(singular))))
    right, _ = np.linalg.qr(random.standard_normal((shape[1], len(singular))))
    matrix: Floats = (left * np.array(singular)) @ right.T
    return matrix
