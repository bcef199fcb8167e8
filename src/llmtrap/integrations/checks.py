"""What one check of a run's weights found, and the numbers of it that a trainer logs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmtrap.printable import printable
from llmtrap.report.formatting import number

PREFIX = "llmtrap/"


@dataclass(frozen=True)
class NewTrap:
    """A matrix in which a trap stands clear that it did not have when the training began."""

    matrix: str
    cause: str
    strength: float

    @property
    def words(self) -> str:
        """`layers.3.mlp.down (entry [7, 11], 2.1 × the edge)`."""
        return f"{printable(self.matrix, 120)} ({self.cause}, {number(self.strength)} × the edge)"


@dataclass(frozen=True)
class Check:
    """What one check found. `problem` says what could not be measured, `error` why nothing was."""

    step: int
    traps: int = 0
    matrices_with_traps: int = 0
    strongest: float | None = None
    new: tuple[NewTrap, ...] = ()
    matrices: int = 0
    measured: int = 0
    undecided: int = 0
    non_finite: int = 0
    failed: int = 0
    problem: str | None = None
    alpha: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    def metrics(self) -> dict[str, float]:
        """What is logged, under names that do not change."""
        if self.error is not None:
            return {}
        values: dict[str, float | None] = {
            "traps": self.traps, "matrices_with_traps": self.matrices_with_traps, "new_traps": len(self.new),
            "strongest": self.strongest, "measured": self.measured, "undecided": self.undecided,
            "failed": self.failed, "non_finite": self.non_finite, "checked_step": self.step,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip
        if self.alpha:
            values["alpha_median"] = statistics.median(self.alpha.values())
            values["alpha_min"] = min(self.alpha.values())
            values["alpha_matrices"] = len(self.alpha)
        return {PREFIX + name: float(value) for name, value in values.items() if value is not None}
