"""What is said of a checkpoint before the work begins: its name and commit, its formats, and where its bytes are."""

from __future__ import annotations

from collections.abc import Iterable

from llmtrap.audit import AuditSettings, Plan
from llmtrap.audit.plan import unused_patterns
from llmtrap.checkpoint import Checkpoint, WeightMatrix
from llmtrap.checkpoint.sources.base import SourceIdentity
from llmtrap.report.formatting import join, plural, printable

# Adapters have an encoding for every rank and scale: more than so many are only counted.
_MOST_NAMED = 4


def introduction(checkpoint: Checkpoint, plan: Plan, *, full_paths: bool = False) -> str:
    """One line: `org/name@COMMIT: gpt_oss, BF16 and MXFP4, 3 files from the hub`."""
    catalogue = checkpoint.catalogue
    base = f", an adapter of {_label(catalogue.base, full_paths)}" if catalogue.base is not None else ""
    files = plural(len(catalogue.files), "file") + where_from(checkpoint)
    formats = encodings(task.matrix for task in plan.tasks)
    return f"{_label(catalogue.identity, full_paths)}{base}: {checkpoint.family}, {formats}, {files}"


def _label(identity: SourceIdentity, full_paths: bool) -> str:
    return printable(identity.label if full_paths else identity.shown_label)


def warnings(checkpoint: Checkpoint, settings: AuditSettings) -> list[str]:
    """What was asked for and has no effect.

    Raises:
        UsageError: a pattern of --include matches nothing.
    """
    unused = unused_patterns(checkpoint.matrices, settings)
    return [f"warning: --exclude {printable(glob, 80)} matches no matrix of this checkpoint" for glob in unused]


def encodings(matrices: Iterable[WeightMatrix]) -> str:
    """`BF16 and MXFP4`: the storage formats of these matrices."""
    names = sorted({matrix.encoding for matrix in matrices})
    if len(names) > _MOST_NAMED:
        return f"{plural(len(names), 'storage format')}"
    return join([printable(name, 60) for name in names]) or "no matrix"


def where_from(checkpoint: Checkpoint) -> str:
    """Whether the files come over the network, as words to follow their number; empty for local ones."""
    identities = (checkpoint.catalogue.identity, checkpoint.catalogue.base)
    if any(identity is not None and identity.kind == "remote" for identity in identities):
        return " over the network"
    if all(identity is None or identity.kind != "hub" for identity in identities):
        return ""
    is_local = getattr(checkpoint.source, "is_local", None)
    local = sum(is_local(file.name) for file in checkpoint.catalogue.files) if is_local else 0
    if local == len(checkpoint.catalogue.files):
        return " from the hub's cache"
    return " from the hub" + (f", {local} of them in its cache" if local else "")
