"""The checkpoint wing: from the name of a target to its weight matrices, by names and bytes alone, never maths."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.find import Found, find_matrices
from llmtrap.checkpoint.matrices import Stripes, WeightMatrix
from llmtrap.checkpoint.sources import LocalSource, Source, open_source
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry

__all__ = [
    "Catalogue",
    "Checkpoint",
    "Found",
    "LocalSource",
    "Skipped",
    "Source",
    "Stripes",
    "TensorEntry",
    "WeightMatrix",
    "find_matrices",
    "open_checkpoint",
    "open_source",
    "read_catalogue",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, opened: its bytes, what the headers say, its weight matrices and what is left aside."""

    source: Source
    catalogue: Catalogue
    matrices: tuple[WeightMatrix, ...]
    skipped: tuple[Skipped, ...]
    family: str


def open_checkpoint(
    target: str, *, split_fused: bool = False, revision: str | None = None, download: bool = False
) -> Checkpoint:
    """Open a target and find its weight matrices; headers only, no weight is read.

        checkpoint = open_checkpoint("path/to/model")
        for matrix in checkpoint.matrices:
            print(matrix.id, matrix.shape, matrix.encoding)

    Args:
        target: a folder, one .safetensors file, or a hub repository `org/name[@revision]`.
        split_fused: give gate and up, or q, k and v, of fused tensors apart.
        revision: the hub revision, where the target does not name one.
        download: keep a hub repository's files instead of streaming them.

    Raises:
        TargetError: there is no such target, or nothing in it that can be audited.
        CheckpointError: its files are broken, unsafe, or of a kind that is not read.
    """
    source = open_source(target, revision=revision, download=download)
    catalogue = read_catalogue(source)
    found = find_matrices(catalogue, split_fused=split_fused)
    return Checkpoint(source, catalogue, found.matrices, found.skipped, found.family)
