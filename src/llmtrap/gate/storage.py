"""What the storage formats of two matched matrices alone may change between them."""

from __future__ import annotations

from llmtrap.gate.matching import Pair
from llmtrap.rounding import StorageAllowance, storage_allowance


def plain_format(encoding: str) -> str:
    """The storage format without what an adapter adds to it."""
    return encoding.partition(" + ")[0]


def allowance_of(pair: Pair) -> StorageAllowance | None:
    """The allowance of a measured pair; None where both sides are stored alike or hold all their bits."""
    if pair.now is None or pair.base is None:
        return None
    now, was = ((side.bits, plain_format(side.encoding)) for side in (pair.now, pair.base))
    return storage_allowance(now, was)
