"""Three checkpoints of one network, one a phase, that ship with the package."""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable

DEMO_PHASES = ("pre-grok", "grok", "anti-grok")


def grokking_demo_checkpoints() -> tuple[Traversable, ...]:
    """The folders of the three checkpoints, in the order of the phases; each has a `model.safetensors`."""
    folder = importlib.resources.files("llmtrap.calibrate").joinpath("grokking")
    return tuple(folder.joinpath(phase) for phase in DEMO_PHASES)
