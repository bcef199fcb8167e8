"""Training checkpoints: folders in which many processes wrote their shares of every tensor."""

from __future__ import annotations

import posixpath

from llmtrap.checkpoint.layout import KINDS, root_weights
from llmtrap.checkpoint.sources.base import FileEntry, Source
from llmtrap.checkpoint.tensors import FileContents
from llmtrap.checkpoint.training.dcp import is_dcp, read_dcp
from llmtrap.checkpoint.training.zero import is_part, is_zero, read_zero

__all__ = ["read_training"]


def read_training(source: Source, folder: str = "") -> tuple[FileContents, tuple[FileEntry, ...]] | None:
    """The tensors of a training checkpoint and the files that hold them; None where the folder is none.

    A folder that has weights of its own, as trainers export them beside the run's state, is none.

    Raises:
        CheckpointError: a part is missing or broken, or the parts do not make up the tensors.
        UnsafeFileError: a file names a function that no state dict needs.
        UnsupportedError: a layout that is not read; the error names the tool that converts it.
    """
    here = folder.rstrip("/")
    names = [posixpath.basename(file.name) for file in source.files() if posixpath.dirname(file.name) == here]
    own = {name for kind in KINDS for name in root_weights(names, kind) if not is_part(name) and name != "common.pt"}
    if own:
        return None
    if is_dcp(source, folder):
        return read_dcp(source, folder)
    return read_zero(source, folder) if is_zero(source, folder) else None
