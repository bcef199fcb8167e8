"""What an opened target is: its bytes, its catalogue, its weight matrices."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.sources.base import Source
from llmtrap.checkpoint.tensors import Catalogue, Skipped


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, opened: its bytes, what the headers say, its weight matrices and what is left aside."""

    source: Source
    catalogue: Catalogue
    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str
