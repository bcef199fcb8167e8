"""What the readers of names have in common: words, what stands for numbers, and what other names tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

Words = tuple[str, ...]
NUMBER = "#"
"""Stands in a kind for any number: `layers.#.mlp.up_proj`."""

TEXT = "text"
INPUT_PROJECTION = "input_projection"
"""Joins the last hidden state with a token's embedding: in a draft layer alone."""
PAIR = "#pair"
"""Ends the role of two modules of a list, of which the first leads in and the second out."""


@dataclass(frozen=True)
class Context:
    """What the other names of the checkpoint tell of one: all by beginnings of kinds.

    Attributes:
        children: beginning → the words that follow it.
        indices: beginning that ends in a number → the numbers that occur there, ascending.
        repeated: beginnings that end in a number under which the same modules come again: stacks without a known word.
        encoders: beginnings under which there is an encoder beside a decoder or a language model.
        shapes: kind → the shape of its first matrix.
        rewards: whether config.json says that the model gives a reward.
    """

    children: Mapping[Words, Collection[str]] = field(default_factory=dict)
    indices: Mapping[Words, tuple[int, ...]] = field(default_factory=dict)
    repeated: Collection[Words] = ()
    encoders: Collection[Words] = ()
    shapes: Mapping[Words, tuple[int, ...]] = field(default_factory=dict)
    rewards: bool = False


def where(chosen: Sequence[bool]) -> tuple[list[int], list[int]]:
    """Where it is false, and where it is true."""
    return [k for k, one in enumerate(chosen) if not one], [k for k, one in enumerate(chosen) if one]
