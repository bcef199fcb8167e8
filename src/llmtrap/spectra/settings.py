"""What is asked of a matrix; imports nothing that computes, for commands that only plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmtrap.errors import UsageError

TRAP_MODES = ("auto", "measure", "certify")
TRAP_RULES = ("tracy-widom", "weightwatcher")
SEEDS = 1 << 63
# Shuffles of a matrix whose first ones leave doubt. Whoever asks for fewer than the default wants no more.
SHUFFLES = 5
SHUFFLES_IN_DOUBT = 25
MOST_SHUFFLES: Final = 10_000
HELD_ENTRIES = 50_000_000
"""Entries held in memory at once (200 MB of float32); larger matrices are read by blocks, once where that is enough."""


@dataclass(frozen=True)
class AnalysisSettings:
    """What to measure of a matrix.

    `traps`: auto (certify, else measure; without `alpha` predict before measuring), measure (shuffle always), certify
    (certify and predict: one pass). `shuffles`: how many, and `most_shuffles` how many where those leave doubt whether
    every one shows a trap (None: 25; but no more than `shuffles` where fewer than 5 are asked for, or `paired`).
    `paired`: shuffle by place and by rank rather than by value, so that two versions of a matrix are seen through the
    same shuffles.
    """

    alpha: bool = True
    traps: str = "auto"
    rule: str = "tracy-widom"
    shuffles: int = SHUFFLES
    most_shuffles: int | None = None
    seed: int = 0
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse what no measurement can mean.

        Raises:
            UsageError: an unknown word, no shuffle at all, or a seed that no generator takes.
        """
        for name, value, known in (("traps", self.traps, TRAP_MODES), ("trap rule", self.rule, TRAP_RULES)):
            if value not in known:
                raise UsageError(f"there is no {name} {value!r}", remedy=f"Choose one of: {', '.join(known)}")
        if self.shuffles < 1:
            raise UsageError("--shuffles must be at least 1", remedy="Give the number of shuffles, 5 by default")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"the seed {self.seed} is not between 0 and 2^63 - 1", remedy="Give another --seed")

    @property
    def in_doubt(self) -> int:
        """How many shuffles to make where the first ones leave doubt."""
        if self.most_shuffles is not None:
            return max(self.most_shuffles, self.shuffles)
        return self.shuffles if self.paired or self.shuffles < SHUFFLES else max(SHUFFLES_IN_DOUBT, self.shuffles)
