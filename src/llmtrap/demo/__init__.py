"""A small checkpoint with known traps, made on the spot: what `llmtrap audit --demo` measures."""

from __future__ import annotations

from llmtrap.demo.checkpoint import DEMO_SHAPE, write_demo_checkpoint
from llmtrap.demo.manifest import DemoManifest, PlantedTrap

__all__ = ["DEMO_SHAPE", "DemoManifest", "PlantedTrap", "write_demo_checkpoint"]
