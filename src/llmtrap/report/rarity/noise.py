"""Layers whose matrices all look like random numbers: not trained, or replaced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from llmtrap.report.document import Matrix
from llmtrap.report.facts import block
from llmtrap.report.rarity.measures import MEASURES

AS_RANDOM: Final = -0.12
"""log₁₀ of the stable rank over that of a random matrix: from three quarters of it on, the spectrum is like noise.

Single matrices of trained models go so far (values and outputs of attention above all); no layer does with all of them.
"""
FEWEST_OF_LAYER: Final = 3
LEAST_SIDE: Final = 50  # of smaller matrices the stable rank is no sign


def noise_layers(matrices: Sequence[Matrix]) -> list[list[Matrix]]:
    """The matrices of each layer in which all, three or more, have the stable rank of random numbers, by layer."""
    layers: dict[tuple[str, int], list[Matrix]] = defaultdict(list)
    for matrix in matrices:
        if matrix.layer is not None and matrix.expert is None and min(matrix.shape) >= LEAST_SIDE:
            layers[block(matrix), matrix.layer].append(matrix)
    return [held for held in layers.values() if len(held) >= FEWEST_OF_LAYER and all(map(_as_random, held))]


def _as_random(matrix: Matrix) -> bool:
    value = MEASURES["stable_rank"].of(matrix)
    return value is not None and value >= AS_RANDOM
