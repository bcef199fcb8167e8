"""What an opened target is: its bytes, its catalogue, its weight matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmtrap.checkpoint.cautions import Caution, cautions
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.sources.base import Source
from llmtrap.checkpoint.tables import is_table, left_out_tables
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, opened: its bytes, what the headers say, its weight matrices and what is left aside.

    `matrices` has the tables of positions and the like too, which no audit measures.
    `further` are tensors of another file than the catalogue's: those that an adapter brings along. `unknown` are the
    modules whose names say no role that is known, `notes` what was asked for and not done. `tables` are those that
    `without_tables` took out.
    """

    source: Source
    catalogue: Catalogue
    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str
    further: tuple[TensorEntry, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[WeightMatrix, ...] = ()

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What is to be known of how the weights are stored before their numbers are read."""
        return cautions(self.catalogue, self.matrices)

    @property
    def beside(self) -> tuple[TensorEntry, ...]:
        """The tensors that no matrix is measured from: parts of none, or tables."""
        parts = {name for matrix in self.matrices if not is_table(matrix) for name in matrix.tensors}
        return (*(entry for name, entry in self.catalogue.tensors.items() if name not in parts), *self.further)

    def without_tables(self) -> Checkpoint:
        """The same, with its tables not among the matrices but among what is skipped."""
        tables = tuple(matrix for matrix in self.matrices if is_table(matrix))
        if not tables:
            return self
        matrices = tuple(matrix for matrix in self.matrices if not is_table(matrix))
        return replace(self, matrices=matrices, skipped=(*self.skipped, *left_out_tables(tables)), tables=tables)
