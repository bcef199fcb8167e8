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

from llmtrap.ablation.components import Shuffle, first_shuffle
from llmtrap.ablation.measures import jensen_shannon
from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.diagnostics import PROBE_SCALES, gaussian_probes
from llmtrap.calibrate.document import Ablation
from llmtrap.calibrate.measure_checkpoint import analyse_matrix, matrix_id
from llmtrap.calibrate.networks import forward
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.seeds import numpy_stream
from llmtrap.spectra import TrapAnalysis
from llmtrap.spectra.certificate import entry_limit

Floats = NDArray[np.float64]
# The largest traps are taken one by one, and random controls are means over so many draws.
_SINGLES = 3
_DRAWS = 3


@dataclass(frozen=True)
class Component:
    """Part of a matrix that traps of its first shuffle account for.

    Attributes:
        cause: "all", "mean_shift" or "centred".
        trap: which, in words.
        matrix: the part, in the original order of the entries.
        singular: its singular values in the shuffled matrix, largest first.
    """

    cause: str
    trap: str
    matrix: Floats
    singular: tuple[float, ...]


def trap_components(name: str, matrix: NDArray[np.floating], traps: TrapAnalysis, seed: int) -> tuple[Component, ...]:
    """The largest traps one by one, all of them together, and the centred ones together.

    How many there are is the audit's count of its first shuffle; the components are the leading singular ones of that
    shuffle. "centred" are those of the matrix without its mean.

    Args:
        name: of the matrix.
        matrix: its entries.
        traps: the audit's.
        seed: of the shuffles.
    """
    if not traps.counts:
        return ()
    count = traps.counts[0]
    shuffle = first_shuffle(matrix_id(name), (int(matrix.shape[0]), int(matrix.shape[1])), seed)
    whole = shuffle.apply(matrix.astype(np.float64))
    found: list[Component] = []
    if count.count:
        u, s, vt = np.linalg.svd(whole, full_matrices=False)
        ones = np.full(shuffle.shape[1], shuffle.shape[1] ** -0.5)
        for k in range(min(count.count, _SINGLES)):
            cause = "mean_shift" if abs(vt[k] @ ones) > 0.5**0.5 else "centred"
            found.append(_leading(shuffle, u[:, k:], s[k:], vt[k:], 1, cause, f"{k + 1}"))
        found.append(_leading(shuffle, u, s, vt, count.count, "all", f"all {count.count}"))
    if count.centred:
        parts = np.linalg.svd(whole - traps.bulk.mean, full_matrices=False)
        found.append(_leading(shuffle, *parts, count.centred, "centred", f"all {count.centred}"))
    return tuple(found)


def _leading(shuffle: Shuffle, u: Floats, s: Floats, vt: Floats, count: int, cause: str, trap: str) -> Component:
    part = shuffle.undo((u[:, :count] * s[:count]) @ vt[:count])
    return Component(cause, trap, part, tuple(s[:count].tolist()))


def largest_entries(matrix: NDArray[np.floating], mean: float, deviation: float) -> NDArray[np.bool_]:
    """Entries that alone push an eigenvalue out of the bulk: beyond s(NM)^¼ of the mean."""
    far: NDArray[np.bool_] = np.abs(matrix - mean) > deviation * entry_limit(*matrix.shape)
    return far


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
        scales = {f"Gaussian × {scale:g}": scale for scale in PROBE_SCALES} if recipe.images else {}
        self._probes = {name: gaussian_probes(recipe, data, seed, scale) for name, scale in scales.items()}
        self._probes["test images" if recipe.images else "test examples"] = data.test_inputs
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
        changed = torch.from_numpy(matrix).to(self.weights[name].dtype)
        return self._outcome({**self.weights, name: changed})


def ablate_layer(setup: AblationSetup, name: str, phase: str, step: int) -> tuple[Ablation, ...]:
    """Every intervention on one matrix: its largest traps one by one, all, the centred ones, the huge entries."""
    matrix, stored, before = setup.weights[name].double().numpy(), setup.weights[name].numpy(), setup.whole
    _, traps = analyse_matrix(name, stored, setup.seed)
    rows: list[Ablation] = []
    for cause, trap, action, norm, changed in _interventions(name, matrix, stored, traps, setup.seed):
        outcomes = [setup.with_matrix(name, other) for other in changed]
        train, test = (float(np.mean([getattr(outcome, part) for outcome in outcomes])) for part in ("train", "test"))
        change = np.mean([outcome.by_class for outcome in outcomes], axis=0) - before.by_class
        rows.append(
            Ablation(
                phase=phase, step=step, layer=matrix_id(name), cause=cause, trap=trap, action=action, norm=norm,
                train_accuracy=train, test_accuracy=test, train_change=train - before.train,
                test_change=test - before.test, class_change=tuple(change.tolist()),
                jsd={probe: float(np.mean([o.jsd[probe] for o in outcomes])) for probe in before.jsd},
            )
        )  # fmt: skip
    return tuple(rows)


def _interventions(
    name: str, matrix: Floats, stored: NDArray[np.floating], traps: TrapAnalysis, seed: int
) -> Iterator[tuple[str, str, str, float, list[Floats]]]:
    """Cause, trap, action, norm of what is taken, and the matrices that result, one a draw."""
    random = numpy_stream(seed, "ablation")
    for component in trap_components(name, stored, traps, seed):
        draws = _DRAWS if component.trap.startswith("all") else 1
        norm = float(np.linalg.norm(component.matrix))
        for action, changed in _in_place_of(component, draws, random):
            yield component.cause, component.trap, action, norm, [matrix + change for change in changed]
    huge = largest_entries(matrix, traps.bulk.mean, traps.bulk.deviation)
    if count := int(huge.sum()):
        which, mean = f"{count} entries", traps.bulk.mean
        cleared = np.where(huge, mean, matrix)
        norm = float(np.linalg.norm(cleared - matrix))
        yield "entries", which, "set to the mean", norm, [cleared]
        chosen = [random.permutation(huge.reshape(-1)).reshape(huge.shape) for _ in range(_DRAWS)]
        others = [np.where(places, mean, matrix) for places in chosen]
        yield "entries", which, "control: as many random entries set to the mean", norm, others


def _in_place_of(component: Component, draws: int, random: np.random.Generator) -> Iterator[tuple[str, list[Floats]]]:
    """What is added when the component is removed or replaced, or something of the same norm removed instead."""
    part = component.matrix
    yield "removed", [-part]
    yield "replaced by noise", [_noise(part, random) - part for _ in range(draws)]
    shuffled = [random.permutation(part.reshape(-1)).reshape(part.shape) for _ in range(draws)]
    yield "control: its entries at random places", [-other for other in shuffled]
    yield "control: random directions", [-_directions(part.shape, component.singular, random) for _ in range(draws)]


def _noise(part: Floats, random: np.random.Generator) -> Floats:
    """Gaussian entries of the same Frobenius norm."""
    noise = random.standard_normal(part.shape)
    return noise * (np.linalg.norm(part) / np.linalg.norm(noise))


def _directions(shape: tuple[int, ...], singular: tuple[float, ...], random: np.random.Generator) -> Floats:
    """A matrix of the same singular values along random orthonormal directions."""
    left, _ = np.linalg.qr(random.standard_normal((shape[0], len(singular))))
    right, _ = np.linalg.qr(random.standard_normal((shape[1], len(singular))))
    matrix: Floats = (left * np.array(singular)) @ right.T
    return matrix
