"""An adapter's patterns of module names: matched as PEFT matches them, in a time that is bounded before any is run.

A pattern is a regular expression from a stranger, and Python's engine tries every way to match one: twenty `a?`, or as
many groups with an empty branch, can take for ever. How many ways there are is counted first.

Not the library `regex` with its timeout: `(?R)` took 730 MB before one of two seconds came, and whether an adapter can
be read would depend on how busy a machine is.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

from llmtrap.checkpoint.names import printable
from llmtrap.errors import CheckpointError, UnsupportedError

MAX_LENGTH = 300
"""Characters of a pattern, and of a module's name that one is run on."""

MAX_STEPS = 5_000_000_000
"""Steps of the engine for all patterns and modules of one adapter: some seconds at the most."""

# What else costs, in steps as well: a name looked up, and compiling a character and a class, wide ranges at the worst.
_LOOKUP, _CHARACTER, _CLASS = 500, 5000, 2_500_000
# A quantifier on a group multiplies without a bound, and flags inside could hide one. `\(` has no place in a name, and
# left out, every `(` opens a group.
_UNBOUNDED = re.compile(r"\)\s*[*+?{]|\(\?(?!:|=|!|<=|<!)|\\[()]")
_PLAIN = re.compile(r"[\w.]+")


class Patterns:
    """One table of an adapter's configuration: the value of the first pattern that fits the end of a module's name.

    Args:
        table: pattern → value, as the configuration has it.
        key: its name there, for errors.
        file: the configuration's name, for errors.
        remedy: what to do where a pattern is not run.

    Raises:
        CheckpointError: the table is no object.
    """

    def __init__(self, table: Any, *, key: str, file: str, remedy: str):
        if not isinstance(table, dict):
            raise CheckpointError(f"{key} is not an object", file=file, remedy="Save the adapter again with peft")
        self._file, self._remedy = file, remedy
        self._values = list(table.values())
        self._plain: dict[str, int] = {}
        self._expressions: list[tuple[int, str]] = []
        for number, pattern in enumerate(table):
            if _PLAIN.fullmatch(pattern):
                self._plain[pattern] = number
            else:
                self._expressions.append((number, pattern))
        self._compiled: dict[str, re.Pattern[str]] = {}
        self._steps = 0

    def find(self, module: str, default: object) -> object:
        """The value for this module, or the default.

        Raises:
            CheckpointError: a pattern is no regular expression.
            UnsupportedError: a pattern might never end.
        """
        first = min(self._fitting(module), default=None)
        for number, pattern in self._expressions:
            if first is not None and number > first:
                break
            if self._fits(pattern, module):
                return self._values[number]
        return default if first is None else self._values[first]

    def _fitting(self, module: str) -> list[int]:
        """The plain patterns that are the module's name or its end."""
        if not self._plain:
            return []
        starts = [0, *(found.end() for found in re.finditer(r"\.", module))]
        self._spend(_LOOKUP * len(starts), module)
        return [self._plain[module[start:]] for start in starts if module[start:] in self._plain]

    def _fits(self, pattern: str, module: str) -> bool:
        if len(pattern) > MAX_LENGTH or len(module) > MAX_LENGTH or _UNBOUNDED.search(pattern):
            raise self._not_run(pattern)
        self._spend(most_steps(pattern, module), pattern)
        if pattern not in self._compiled:
            self._spend(_CHARACTER * len(pattern) + _CLASS * pattern.count("["), pattern)
            self._compiled[pattern] = self._compile(pattern)
        return self._compiled[pattern].match(module) is not None

    def _spend(self, steps: int, pattern: str) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise self._not_run(pattern)

    def _compile(self, pattern: str) -> re.Pattern[str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what a later Python may read otherwise
                return re.compile(rf"(.*\.)?({pattern})$")
        except (re.error, OverflowError, RecursionError) as error:
            problem = f"{printable(pattern, 80)!r} is no pattern: {printable(str(error), 200)}"
            raise CheckpointError(problem, file=self._file, remedy="Save the adapter again with peft") from error

    def _not_run(self, pattern: str) -> UnsupportedError:
        problem = f"the pattern {printable(pattern, 80)!r} is not run: it might never end"
        return UnsupportedError(problem, file=self._file, remedy=self._remedy)


def most_steps(pattern: str, module: str) -> int:
    """A bound on the engine's steps: the ways to match, times the characters compared in each.

    From the characters alone, wherever they stand, so that no reading of the pattern can be wrong: `*`, `+` and `{`
    share the name's length among them, a `?` doubles, and a group multiplies by its branches.
    """
    repeats = sum(pattern.count(sign) for sign in "*+{")
    options = pattern.count("?") - pattern.count("(?")
    groups = pattern.count("(") + 1
    branches = (1 + pattern.count("|") / groups) ** groups
    ways: int = math.comb(len(module) + repeats, repeats) * (1 << options) * math.ceil(branches)
    return (module.count(".") + 1) * ways * len(pattern)
