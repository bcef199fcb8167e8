"""What a gate is given: a report, a checkpoint, or a LoRA adapter with or without its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llmtrap.checkpoint import Checkpoint, Source, open_checkpoint, open_source
from llmtrap.checkpoint.adapters import Adapter, is_adapter, read_adapter
from llmtrap.checkpoint.memory.opening import is_in_memory, named
from llmtrap.checkpoint.opening import Target as Weights
from llmtrap.checkpoint.opening import open_base
from llmtrap.checkpoint.parts import open_parts
from llmtrap.errors import UsageError
from llmtrap.report.document import Report
from llmtrap.report.read import read_report


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter and its files."""

    adapter: Adapter
    source: Source


Opened = Report | Checkpoint | OpenAdapter
Target: TypeAlias = "Weights | Report"


def open_target(
    target: Target, *, split_fused: bool = False, revision: str | None = None, subfolder: str | None = None
) -> Opened:
    """Open a target: a file that ends in .json is a report, everything else what `audit` takes, or an adapter.

    A report that is at hand is taken as it is.

    Raises:
        LlmtrapError: it cannot be opened; the message says why.
    """
    if isinstance(target, Report):
        return target
    if is_in_memory(target):
        return open_checkpoint(target, split_fused=split_fused, revision=revision, subfolder=subfolder)
    target = named(target)
    if is_report(target):
        if subfolder is not None:
            raise UsageError("a report has no subfolder", file=target, remedy="Leave --subfolder out")
        return read_report(Path(target))
    source = open_source(target, revision=revision, subfolder=subfolder)
    if is_adapter(source):
        return OpenAdapter(read_adapter(source), source)
    return open_parts(source, split_fused=split_fused)


def adapter_base(opened: OpenAdapter, *, split_fused: bool = False) -> Checkpoint:
    """The base model that an adapter names.

    Raises:
        LlmtrapError: it names none, or it cannot be opened; the message says why.
    """
    return open_base(opened.adapter, opened.source, split_fused=split_fused)


def names_it(adapter: Adapter, base: Checkpoint) -> bool:
    """Whether an adapter names this checkpoint as its base: the same path, the same repository, or a copy by its name.

    An adapter that names no base is taken at the caller's word.
    """
    name = adapter.base_name
    if name is None:
        return True
    identity = base.catalogue.identity
    if identity.kind == "memory":
        return identity.name == name
    if identity.kind == "hub":
        return identity.name == name and adapter.base_revision in (None, identity.revision)
    here = Path(identity.name).resolve()
    try:
        if Path(name).resolve() == here:
            return True
    except OSError:
        pass
    if Path(name).is_absolute() or Path(name).exists():
        return False
    # A repository's copy: in a folder of its name, or in the hub's cache.
    cached = f"models--{name.replace('/', '--')}"
    return here.name == name.rpartition("/")[2] or cached in here.parts


def is_report(target: str) -> bool:
    """Whether the name is a report's."""
    return target.endswith(".json") and not Path(target).is_dir()
