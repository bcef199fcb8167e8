"""Weight files that may be the model's and were not looked at: whether they are the base's own, byte for byte."""

from __future__ import annotations

from collections import Counter

from llmtrap.checkpoint import Checkpoint, Skipped
from llmtrap.checkpoint.adapted import PLACE
from llmtrap.checkpoint.sources.base import FileEntry
from llmtrap.errors import LlmtrapError
from llmtrap.gate.unchanged import equal_files, same_files
from llmtrap.report.document import SkippedTensor
from llmtrap.report.formatting import printable


def own_files(now: Checkpoint, was: Checkpoint) -> frozenset[str]:
    """The names, as coverage has them (`FILE (file)`), of the target's unread weight files that the base has too.

    What both sides leave aside cannot be judged; it is no change either where the bytes are the same. Digests decide
    where both listings have them; else the files are compared, up to the first difference.

    Args:
        now: the target.
        was: the base.
    """
    mine, theirs = _unread(now), _unread(was)
    known = same_files(mine.values(), theirs.values())
    return frozenset(
        name
        for name, file in mine.items()
        if name in theirs and ((file.name, theirs[name].name) in known or _equal(file, now, theirs[name], was))
    )


def is_file(item: Skipped | SkippedTensor) -> bool:
    """Whether what was left out is a whole file, such as an adapter beside whole weights."""
    return item.tensor.endswith(" (file)")


def _unread(checkpoint: Checkpoint) -> dict[str, FileEntry]:
    """The files that coverage counts as unmeasured weights, but for those whose names are shown alike.

    An adapter's and its base's may be: both lie in the folder of their own.
    """
    wanted = {item.tensor for item in checkpoint.skipped if item.kind == "unmeasured"}
    files = [(f"{printable(file.name.removeprefix(PLACE))} (file)", file) for file in checkpoint.source.files()]
    times = Counter(name for name, _ in files)
    return {name: file for name, file in files if name in wanted and times[name] == 1}


def _equal(file: FileEntry, now: Checkpoint, other: FileEntry, was: Checkpoint) -> bool:
    if file.stamp and (file.stamp, file.size) == (other.stamp, other.size):
        return True  # one file: the base that an adapter was put on
    if file.size != other.size or (file.digest and other.digest and _kind(file.digest) == _kind(other.digest)):
        return False
    try:
        return equal_files(file, now.source, other, was.source)
    except (LlmtrapError, OSError):
        return False


def _kind(digest: str) -> str:
    return digest.partition(":")[0]
