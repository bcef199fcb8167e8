"""From the name of a target to a checkpoint; an adapter's base is found by the name that the adapter gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from llmtrap.checkpoint.adapted import adapt
from llmtrap.checkpoint.adapters import CONFIG, Adapter, is_adapter, read_adapter
from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.families import Family
from llmtrap.checkpoint.memory.opening import is_in_memory, named, open_memory
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.parts import open_parts
from llmtrap.checkpoint.sources import Source, open_hub_source, open_remote_source, open_source
from llmtrap.errors import LlmtrapError, TargetError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

Target: TypeAlias = "str | os.PathLike[str] | torch.nn.Module | Mapping[str, Any]"

_OTHERWISE = (
    "Correct base_model_name_or_path, or merge the two (peft: merge_and_unload, then save_pretrained) "
    "and audit the result"
)


def open_checkpoint(
    target: Target,
    *,
    split_fused: bool = False,
    revision: str | None = None,
    download: bool = False,
    subfolder: str | None = None,
    family: Family | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Open a target and find its weight matrices; headers only, no weight is read.

        checkpoint = open_checkpoint("path/to/model")
        for matrix in checkpoint.matrices:
            print(matrix.id, matrix.shape, matrix.encoding)

    A LoRA adapter is opened together with its base: the matrices are those of base + ΔW.

    Args:
        target: a folder, one .safetensors file, or a hub repository `org/name[/folder][@revision]`. All parts of a
            diffusers pipeline or a sentence-transformers model are opened as one checkpoint. Or what is in memory: a
            `torch.nn.Module`, a state dict, or another mapping of names to arrays.
        split_fused: give gate and up, or q, k and v, of fused tensors apart.
        revision: the hub revision, where the target does not name one.
        download: keep a hub repository's files instead of streaming them.
        subfolder: the folder within the target to audit alone.
        family: what the names of this kind of model cannot tell, read from a file of the user's.
        name: what weights in memory are called.
        config: what a config.json would say of weights in memory; a module's own by default.

    Raises:
        UsageError: an option that this kind of target does not have.
        TargetError: there is no such target, or nothing in it that can be audited; or no such base of an adapter.
        CheckpointError: its files are broken, unsafe, or of a kind that is not read.
    """
    if is_in_memory(target):
        if revision is not None or subfolder is not None or download:
            problem = "weights in memory have no revision, subfolder or download"
            raise UsageError(problem, remedy="Leave the option out")
        return open_memory(target, name=name, config=config, split_fused=split_fused, family=family)
    if name is not None or config is not None:
        raise UsageError("name and config are for weights in memory", remedy="Leave them out: files have their own")
    source = open_source(named(target), revision=revision, download=download, subfolder=subfolder)
    if not is_adapter(source):
        return open_parts(source, split_fused=split_fused, family=family)
    adapter = read_adapter(source)
    base = open_base(adapter, source, split_fused=split_fused, download=download, family=family)
    return adapt(base, adapter, source)


def open_base(
    adapter: Adapter,
    source: Source,
    *,
    split_fused: bool = False,
    download: bool = False,
    family: Family | None = None,
) -> Checkpoint:
    """The base that an adapter names: a local adapter a path or a repository, a hub's a repository alone.

    What a hub's adapter says, or a store's, must not choose a folder of this machine.

    Raises:
        LlmtrapError: it names none, or it cannot be opened; the message says why.
    """
    name = adapter.base_name
    if not name:
        raise TargetError("the adapter does not name its base model", file=CONFIG, remedy=_OTHERWISE)
    open_by_name = open_source if source.identity.kind in ("folder", "file") else open_hub_source
    try:
        # Of its own protocol alone: fsspec's local:// would lead to this machine.
        if source.identity.kind == "remote" and name.partition("://")[0] == source.identity.name.partition("://")[0]:
            base: Source = open_remote_source(name)
        else:
            base = open_by_name(name, revision=adapter.base_revision, download=download)
        if is_adapter(base):
            raise UnsupportedError("it is an adapter itself", remedy=_OTHERWISE)
        return open_parts(base, split_fused=split_fused, family=family)
    except LlmtrapError as error:
        # What is wrong with the base must not read as if it were wrong with the target.
        problem = f"the adapter's base model {printable(name, 200)!r}: {error.problem}"
        if type(error) is TargetError:
            raise TargetError(problem, file=CONFIG, remedy=_OTHERWISE) from error
        raise type(error)(problem, file=error.file or CONFIG, tensor=error.tensor, remedy=error.remedy) from error
