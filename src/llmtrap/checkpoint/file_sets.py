"""Weight files that belong together by their names: a stem, a variant of its precision, and the number of a shard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmtrap.checkpoint.names import natural_key, printable
from llmtrap.errors import CheckpointError

INCOMPLETE = "Fetch the missing file into the checkpoint's folder"

_VARIANT = r"(?:bf|fp|f|float|bfloat|int|q)\d{1,2}(?:_[a-z0-9]+)?|ema|non_ema"
_STEM = re.compile(rf"(?P<stem>.+?)(?:\.(?P<variant>{_VARIANT}))?")
_SHARD = re.compile(
    r"(?P<head>.*?)(?P<gap>[-_.]+)(?P<part>\d{1,9})(?P<between>[-_]?of[-_]?)(?P<count>\d{1,9})(?P<tail>(?:[-_.].*)?)"
)
_PREFERRED = (None, "fp32", "float32", "bf16", "bfloat16", "fp16", "float16")


@dataclass(frozen=True)
class FileSet:
    """The files of one stem and variant, in natural order: one file, or shards."""

    stem: str
    variant: str | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Shards:
    """Where a file's name says that it is a part: `model-00001-of-00003`."""

    head: str
    gap: str
    part: int
    between: str
    count: str
    tail: str

    @classmethod
    def of(cls, name: str) -> _Shards | None:
        found = _SHARD.fullmatch(name)
        if found is None:
            return None
        return cls(found["head"], found["gap"], int(found["part"]), found["between"], found["count"], found["tail"])


def is_shard(name: str) -> bool:
    """Whether the file's name says that it is one of several."""
    return _Shards.of(name.rpartition(".")[0]) is not None


def file_sets(names: Iterable[str]) -> list[FileSet]:
    """Group the names of weight files of one folder by stem and variant."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name in sorted(names, key=natural_key):
        whole, _, _ = name.rpartition(".")
        shards = _Shards.of(whole)
        # diffusers once wrote the variant after the number, and writes it before it now.
        found = _STEM.fullmatch(whole if shards is None else shards.head + shards.tail)
        stem, variant = (found["stem"], found["variant"]) if found else (whole, None)
        groups.setdefault((stem, variant), []).append(name)
    return [FileSet(stem, variant, tuple(group)) for (stem, variant), group in groups.items()]


def preferred(sets: Iterable[FileSet]) -> list[FileSet]:
    """Of the variants of each stem the one that libraries load unasked: without a variant, else the widest numbers."""
    chosen: dict[str, FileSet] = {}
    for item in sorted(sets, key=lambda item: variant_rank(item.variant)):
        chosen.setdefault(item.stem, item)
    return list(chosen.values())


def variant_rank(variant: str | None) -> tuple[int, str]:
    """The order in which variants are preferred."""
    return _PREFERRED.index(variant) if variant in _PREFERRED else len(_PREFERRED), variant or ""


def check_complete(names: Iterable[str]) -> None:
    """Read the number of shards out of their names, and refuse where one is missing.

    Shards are counted from 1 to N; from 0, N is the last one's number (as GPT-OSS' are named).

    Raises:
        CheckpointError: a shard is missing; the error names it.
    """
    groups: dict[tuple[str, str, str, str, str], set[int]] = {}
    for name in names:
        whole, _, suffix = name.rpartition(".")
        shard = _Shards.of(whole)
        if shard is not None:
            groups.setdefault((shard.head + shard.gap, shard.between, shard.count, shard.tail, suffix), set()).add(
                shard.part
            )
    for (head, between, count, tail, suffix), parts in groups.items():
        expected = range(0 if 0 in parts else 1, int(count) + 1)
        if len(parts) < len(expected):
            number = next(part for part in expected if part not in parts)
            file = f"{head}{number:0{len(count)}}{between}{count}{tail}.{suffix}"
            problem = f"one of the shards is missing: {len(parts)} of {len(expected)} are here by their names"
            raise CheckpointError(problem, file=printable(file), remedy=INCOMPLETE)
