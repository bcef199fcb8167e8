"""The matrices of a base while an adapter is put on it: found by the adapter's names for them, replaced and added."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

from llmtrap.checkpoint.adapter_tensors import unwrapped
from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.encodings.base import StoredTensor
from llmtrap.checkpoint.find import find_matrices
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import Catalogue, TensorEntry
from llmtrap.errors import CheckpointError

_OTHER_BASE = "Give the base model that the adapter was trained on"


class AdaptedMatrices:
    """A base's matrices by id, in its order, each replaced at need. What is not touched stays the same object."""

    def __init__(self, base: Checkpoint):
        self._base = base
        self._matrices = {matrix.id: matrix for matrix in base.matrices}
        self._modules: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        for matrix in base.matrices:
            self._modules.setdefault(unwrapped(matrix.stored.module), matrix.id)
            self._aliases |= dict.fromkeys(matrix.aliases, matrix.id)

    def all(self) -> tuple[WeightMatrix, ...]:
        """Every matrix as it is now."""
        return tuple(self._matrices.values())

    def add(self, matrices: Iterable[WeightMatrix]) -> None:
        """Add matrices that the base has not; a head of its own is the embedding's no more."""
        for matrix in matrices:
            self._separate(matrix.id)
            self._matrices[matrix.id] = matrix
            self._modules.setdefault(matrix.stored.module, matrix.id)

    def find(self, module: str) -> WeightMatrix | None:
        """The matrix of a module: by its whole name, by its end where one of the two names has a prefix more, by id.

        Raises:
            CheckpointError: several modules of the base fit the name.
        """
        if module in self._modules:
            return self._matrices[self._modules[module]]
        near = {
            id_ for name, id_ in self._modules.items() if name.endswith(f".{module}") or module.endswith(f".{name}")
        }
        if len(near) > 1:
            problem = f"{len(near)} modules of the base fit this name"
            raise CheckpointError(problem, tensor=printable(module), remedy=_OTHER_BASE)
        if near:
            return self._matrices[near.pop()]
        return self._by_id(module)

    def find_fused(self, module: str) -> tuple[WeightMatrix, WeightMatrix] | None:
        """The matrix in which the base stores a module fused with others (gate and up), and the module's part of it.

        None where it is in none, or where it is not known how they lie.
        """
        part = next((self._parts[named.id] for named in self._named(module) if named.id in self._parts), None)
        if part is None:
            return None
        whole = next(
            matrix
            for matrix in self._base.matrices
            if matrix.stored.name == part.stored.name and matrix.index == part.index
        )
        return self._matrices[whole.id], part

    @cached_property
    def _parts(self) -> dict[str, WeightMatrix]:
        """The parts of all matrices that the base stores fused, by id."""
        split = find_matrices(self._base.catalogue, split_fused=True)
        return {matrix.id: matrix for matrix in split.matrices if matrix.rows is not None or matrix.columns is not None}

    def replace_one(self, matrix: WeightMatrix) -> None:
        """Put a matrix in the place of the one with its id."""
        self._separate(matrix.id)
        self._matrices[matrix.id] = matrix

    def replace_tensor(self, matrix: WeightMatrix, change: Callable[[StoredTensor], StoredTensor]) -> None:
        """Put another tensor in the place of a matrix', in all matrices that are slices of it."""
        if matrix.id not in self._matrices:  # a tied head
            stored = change(matrix.stored)
            self.replace_one(replace(matrix, stored=stored, shape=(stored.rows, stored.columns)))
            return
        stored = change(matrix.stored)
        for other in [other for other in self._matrices.values() if other.stored is matrix.stored]:
            whole = other.rows is None and other.columns is None
            shape = (stored.rows, stored.columns) if whole else other.shape
            self._matrices[other.id] = replace(other, stored=stored, shape=shape)

    def _by_id(self, module: str) -> WeightMatrix | None:
        """The matrix of the id that the adapter's name gives, whatever the base calls it; a tied head as one apart."""
        for named in self._named(module):
            if named.id in self._matrices:
                return self._matrices[named.id]
            if named.id in self._aliases:
                tied = self._matrices[self._aliases[named.id]]
                return replace(tied, id=named.id, role=named.role, aliases=())
        return None

    def _named(self, module: str) -> tuple[WeightMatrix, ...]:
        """A matrix of this module's name, for its id and role."""
        name = f"{module}.weight"
        entry = TensorEntry(name, "F32", (2, 2), ByteRange("", 0, 16))
        catalogue = Catalogue(self._base.catalogue.identity, {name: entry}, (), self._base.catalogue.config)
        return find_matrices(catalogue).matrices

    def _separate(self, id_: str) -> None:
        """Take a name from the matrix that stood for it."""
        holder = self._aliases.pop(id_, None)
        if holder is not None:
            tied = self._matrices[holder]
            self._matrices[holder] = replace(tied, aliases=tuple(name for name in tied.aliases if name != id_))
