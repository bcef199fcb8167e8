"""What an opened target is: its bytes, its catalogue, its weight matrices."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.checkpoint.cautions import Caution, cautions
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.sources.base import Source
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, opened: its bytes, what the headers say, its weight matrices and what is left aside.

    `further` are tensors of another file than the catalogue's: those that an adapter brings along. `unknown` are the
    modules whose names say no role that is known, `notes` what was asked for and not done.
    """

    source: Source
    catalogue: Catalogue
    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str
    further: tuple[TensorEntry, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What is to be known of how the weights are stored before their numbers are read."""
        return cautions(self.catalogue, self.matrices)

    @property
    def beside(self) -> tuple[TensorEntry, ...]:
        """The tensors that are no part of a matrix."""
        parts = {name for matrix in self.matrices for name in matrix.tensors}
        return (*(entry for name, entry in self.catalogue.tensors.items() if name not in parts), *self.further)
