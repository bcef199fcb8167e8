"""Which matrices a pattern means: a glob on ids, tensors and files, or `part=NAME` for a part of the model."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.naming import load_grammar
from llmtrap.errors import UsageError

PART = "part="
TEXT = "text"


def selects(pattern: str, names: Iterable[str], part: str) -> bool:
    """Whether a pattern means a matrix.

    Args:
        pattern: a glob, or `part=` with a glob on the part of the model.
        names: its id, and what else it is called.
        part: the part of the model that it is in.
    """
    if pattern.startswith(PART):
        return fnmatchcase(part, pattern.removeprefix(PART))
    return any(fnmatchcase(name, pattern) for name in names)


def check_parts(matrices: Iterable[WeightMatrix], patterns: Iterable[str]) -> None:
    """Refuse a part that the model does not have.

    Raises:
        UsageError: no matrix is of the part; the remedy names those that there are.
    """
    parts = sorted({matrix.part for matrix in matrices})
    for pattern in patterns:
        if not any(selects(pattern, (), part) for part in parts):
            problem = f"no matrix is of the part {pattern.removeprefix(PART)!r}"
            raise UsageError(problem, remedy=f"The parts of this model: {', '.join(parts) or 'none'}")


def part_of_id(identity: str) -> str:
    """The part of the model that a canonical id names: its first word, or the text's, which no id names."""
    word = identity.rpartition("/")[2].partition(".")[0]
    return word if word in load_grammar().part_names else TEXT
