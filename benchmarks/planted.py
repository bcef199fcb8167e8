"""Which matrices of a made checkpoint get which trap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np

from llmtrap.demo import planting
from llmtrap.demo.layout import GptOssShape
from llmtrap.demo.manifest import Cause

EXPERT_TRAPS = 27
ATTENTION_TRAPS = 15

Plan = dict[str, tuple[Cause, float]]
"""Cause and strength, in units of the cause's limit, by matrix id."""


def plan_traps(shape: GptOssShape, seed: int) -> Plan:
    """Spread 42 traps of all three causes over experts and attention, and one over each embedding.

    A checkpoint with few layers or experts gets fewer: at most a third of its matrices.
    """
    rng = np.random.default_rng([seed, 0])
    layers, experts = range(shape.layers), range(shape.experts)
    in_experts = [f"layers.{i}.experts.{j}.{part}" for i in layers for j in experts for part in ("gate_up", "down")]
    in_attention = [f"layers.{i}.attention.{part}" for i in layers for part in "qkvo"]
    causes: cycle[Cause] = cycle(("entry", "mean_shift", "heavy_tail"))
    plan: Plan = {}
    for pool, wanted in ((in_experts, EXPERT_TRAPS), (in_attention, ATTENTION_TRAPS)):
        for place in rng.choice(len(pool), min(wanted, len(pool) // 3), replace=False):
            plan[pool[place]] = next(causes), float(rng.uniform(2.0, 4.0))
    return plan | {"embedding": ("entry", 2.0), "unembedding": ("heavy_tail", 1.0)}


@dataclass(frozen=True)
class EntryPlace:
    """A single entry of a matrix too large to hold: where it goes, and what."""

    row: int
    column: int
    value: float

    @classmethod
    def draw(cls, rng: np.random.Generator, rows: int, columns: int, strength: float, deviation: float) -> EntryPlace:
        """A place anywhere, and a value of `strength` times the limit for entries of this deviation."""
        value = planting.on_grid(strength * deviation * (rows * columns) ** 0.25)
        return cls(int(rng.integers(rows)), int(rng.integers(columns)), value)
