"""What a gate is given: a report, a checkpoint, or a LoRA adapter with or without its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmtrap.checkpoint import Checkpoint, Source, open_source
from llmtrap.checkpoint.adapters import Adapter, is_adapter, read_adapter
from llmtrap.checkpoint.parts import open_parts
from llmtrap.report.document import Report
from llmtrap.report.read import read_report


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter and its files."""

    adapter: Adapter
    source: Source


Opened = Report | Checkpoint | OpenAdapter


def open_target(target: str, *, split_fused: bool = False, revision: str | None = None) -> Opened:
    """Open a target: a file that ends in .json is a report, everything else what `audit` takes, or an adapter.

    Raises:
        LlmtrapError: it cannot be opened; the message says why.
    """
    if is_report(target):
        return read_report(Path(target))
    source = open_source(target, revision=revision)
    if is_adapter(source):
        return OpenAdapter(read_adapter(source), source)
    return open_parts(source, split_fused=split_fused)


def is_report(target: str) -> bool:
    """Whether the name is a report's."""
    return target.endswith(".json") and not Path(target).is_dir()
