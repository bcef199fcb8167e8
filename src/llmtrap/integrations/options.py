"""What a callback is asked to do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from llmtrap.errors import UsageError

OnTrap = Literal["warn", "stop", "keep"]
Late = Literal["skip", "wait"]


@dataclass(frozen=True)
class TrapOptions:
    """What a callback checks, when, and what it does about a new trap.

    Attributes:
        every: steps between two checks; "save" checks where the trainer saves a checkpoint.
        on_trap: `warn` says it, `stop` ends the training at the next step, `keep` keeps the last checkpoint before the
            trap from being deleted; several together as a tuple. Every one of them warns.
        alpha: measure α of a sample that rotates through the matrices.
        alpha_seconds: work for α at each check, in seconds of one core; at least one matrix is measured.
        late: what happens where a check is due and the one before still runs: `skip` it, or let training `wait`.
        finish_seconds: how long the end of training waits for the last check.
        include: only these matrices, as `llmtrap audit --include`.
        exclude: not these.
        seed: of the shuffles.
        trajectory: where to write the run as a trajectory when training ends; None writes none, and keeps no history.
    """

    every: int | Literal["save"] = 50
    on_trap: OnTrap | Collection[OnTrap] = "warn"
    alpha: bool = False
    alpha_seconds: float = 20.0
    late: Late = "skip"
    finish_seconds: float = 120.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    trajectory: str | Path | None = None

    def __post_init__(self) -> None:
        known = get_args(OnTrap)
        if not self.policies <= set(known) or not self.policies:
            wrong = ", ".join(sorted(map(repr, self.policies - set(known)))) or "nothing"
            raise UsageError(f"on_trap is {wrong}", remedy=f"Give one or more of {', '.join(known)}")
        if self.every != "save" and not (isinstance(self.every, int) and self.every >= 1):
            raise UsageError(f"every is {self.every!r}", remedy="Give a number of steps, or 'save'")
        if self.late not in get_args(Late):
            raise UsageError(f"late is {self.late!r}", remedy="Give 'skip' or 'wait'")

    @property
    def policies(self) -> frozenset[str]:
        """What `on_trap` asks for."""
        return frozenset((self.on_trap,) if isinstance(self.on_trap, str) else self.on_trap)

    def is_due(self, step: int) -> bool:
        """Whether a check is due after this step."""
        return self.every != "save" and step % self.every == 0
