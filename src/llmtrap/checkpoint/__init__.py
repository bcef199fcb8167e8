"""The checkpoint package: from the name of a target to its weight matrices, by names and bytes alone, never maths."""

from __future__ import annotations

from llmtrap.checkpoint.catalogue import read_catalogue
from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.find import Found, find_matrices
from llmtrap.checkpoint.matrices import Stripes, WeightMatrix
from llmtrap.checkpoint.opening import open_checkpoint
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
