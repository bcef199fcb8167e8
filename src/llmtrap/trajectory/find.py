"""Which checkpoints a trajectory is of, and in which order: paths, a run's folder, or the revisions of a repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrap.checkpoint.sources.hub import parse_target
from llmtrap.checkpoint.sources.hub.revisions import revisions_like
from llmtrap.errors import TargetError, UsageError
from llmtrap.trajectory.steps import in_order, spread, step_of

WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".lock")


@dataclass(frozen=True)
class NamedCheckpoint:
    """One checkpoint: what to open, at which revision, and its name in the trajectory."""

    target: str
    name: str
    revision: str | None = None


def find_checkpoints(
    targets: Sequence[str], revisions: str | None = None, most: int | None = None, *, full_paths: bool = False
) -> list[NamedCheckpoint]:
    """The checkpoints in the order of their steps; as they were given where a name has no step.

    Args:
        targets: checkpoints, or one folder of a run that holds them, or with `revisions` one hub repository.
        revisions: a pattern for the branches and tags of the repository.
        most: take at most so many, evenly spread, the first and the last among them.
        full_paths: name local checkpoints by their whole paths, not by as many last parts as tell them apart.

    Raises:
        UsageError: the arguments contradict one another.
        LlmtrapError: a run's folder holds none, or the hub has none of these revisions.
    """
    if most is not None and most < 1:
        raise UsageError("--points must be at least 1", remedy="Leave it out to take every checkpoint")
    if revisions is not None:
        if len(targets) != 1:
            raise UsageError("--revisions takes one repository", remedy="Name one: org/name")
        parse_target(targets[0])
        names = revisions_like(targets[0], revisions)
        steps = [name for name in names if step_of(name) is not None]
        # Revisions without a step (main) come after those with one.
        ordered = in_order(steps, steps) + [name for name in names if step_of(name) is None]
        found = [NamedCheckpoint(targets[0], name, name) for name in ordered]
    else:
        paths = [path for target in targets for path in _expanded(target)]
        names = paths if full_paths else shown_names(paths)
        found = in_order([NamedCheckpoint(path, name) for path, name in zip(paths, names, strict=True)], paths)
    return found if most is None else spread(found, most)


def shown_names(targets: Sequence[str]) -> list[str]:
    """Targets for a document that others read: of paths on this machine the last parts that tell them apart."""
    # A folder may be called `.`, and a link keeps the name typed.
    local = {target: Path(os.path.abspath(target)).parts for target in targets if Path(target).exists()}  # noqa: PTH100
    many = 1
    while len({parts[-many:] for parts in local.values()}) < len(set(local.values())):
        many += 1
    return ["/".join(local[target][-many:]) if target in local else target for target in targets]


def _expanded(target: str) -> list[str]:
    """The checkpoints in a run's folder; the target itself where it is a checkpoint, or no folder."""
    folder = Path(target)
    if not folder.is_dir() or step_of(folder.resolve().name) is not None:
        return [target]
    inside = checkpoints_in(folder)
    if not inside:
        return [target]
    if any(item.is_file() and item.suffix in WEIGHT_FILES and item not in inside for item in folder.iterdir()):
        problem = f"it holds weights of its own beside {len(inside)} checkpoints, such as {inside[0].name}"
        raise UsageError(problem, file=target, remedy=f"Name the checkpoints themselves: {folder}/{inside[0].name} …")
    return [str(path) for path in inside]


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder by their steps: subfolders and weight files whose names give one.

    What a trainer is still writing under a temporary name is none. A link is followed: it was put there by whoever
    owns the folder.

    Raises:
        TargetError: the folder cannot be read.
    """
    try:
        items = list(folder.iterdir())
    except OSError as error:
        problem = f"the folder cannot be read ({error.strerror})"
        raise TargetError(problem, file=str(folder), remedy="Check the path and its permissions") from error
    found = [
        (step, item)
        for item in items
        if not item.name.startswith((".", "tmp")) and not item.name.endswith(_UNFINISHED)
        if (step := step_of(item.name)) is not None and (item.is_dir() or item.suffix in WEIGHT_FILES)
    ]
    return [item for _, item in sorted(found)]
