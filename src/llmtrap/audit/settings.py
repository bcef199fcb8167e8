"""What an audit is asked to do: the settings that change its numbers, and how it runs, which changes none."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llmtrap.errors import UsageError
from llmtrap.spectra.settings import MOST_SHUFFLES, AnalysisSettings
from llmtrap.systems.process import HAS_WORKERS, cores

MOST_WORKERS = 4_096
MOST_SECONDS = 366.0 * 86_400
ALONE_SECONDS = 4.0
"""Below this much work, in seconds of one core, worker processes cost more than they save."""

TrapMode = Literal["auto", "measure", "certify"]
TrapRule = Literal["tracy-widom", "weightwatcher"]


@dataclass(frozen=True)
class AuditSettings:
    """Everything that changes a number in the report. See `llmtrap audit --help` for the meaning of each."""

    traps: TrapMode = "auto"
    trap_rule: TrapRule = "tracy-widom"
    alpha: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    split_fused: bool = False
    shuffles: int = 5
    seed: int = 0
    backend: str = "auto"
    device: str = "auto"
    paired: bool = False
    """Shuffles that another version of the checkpoint shares: what the gate measures, never `audit`."""

    def __post_init__(self) -> None:
        if isinstance(self.include, str) or isinstance(self.exclude, str):
            raise UsageError("include and exclude are tuples of patterns, not one text", remedy="Give ('PATTERN',)")
        self.analysis()
        if self.shuffles > MOST_SHUFFLES:
            raise UsageError(
                f"--shuffles must be at most {MOST_SHUFFLES:,}", remedy="Five are enough, 5 is the default"
            )

    def analysis(self) -> AnalysisSettings:
        """The part that the spectra need."""
        return AnalysisSettings(
            alpha=self.alpha, traps=self.traps, rule=self.trap_rule, shuffles=self.shuffles, seed=self.seed,
            paired=self.paired,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Share `number` of `of` of an audit: matrices are dealt out in turn."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(f"there is no part {self.number}/{self.of}", remedy="Give --part I/N with 1 <= I <= N")

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `I/N`."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and len(text) < 20):
            raise UsageError(f"'{text}' is not a part", remedy="Give --part I/N, for instance 1/3")
        return cls(int(number), int(of))

    @property
    def whole(self) -> bool:
        """Whether this share is all there is."""
        return self.of == 1


def available_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: its affinity, or what the quota of its container leaves, rounded up.

    Args:
        cgroups: where Linux shows a container its own limits, in version 2 (`cpu.max`) or 1 (`cpu/cpu.cfs_…_us`).
    """
    there, quota = cores(), _quota(cgroups)
    return there if quota is None else max(1, min(there, math.ceil(quota)))


def usual_workers() -> int:
    """Workers where no number is given: one a core, or one where this process has to do all."""
    return available_cores() if HAS_WORKERS else 1


def _quota(cgroups: Path) -> float | None:
    """Cores' worth of time that a control group allows; None where it sets no limit."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        if (cgroups / "cpu.max").is_file():
            allowed, _, period = (cgroups / "cpu.max").read_text("ascii").partition(" ")
            return None if allowed == "max" else int(allowed) / int(period)
        allowed, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
        return int(allowed) / int(period) if int(allowed) > 0 else None
    return None


@dataclass(frozen=True)
class RunOptions:
    """How an audit runs. Nothing here changes a number of the report but its times.

    `isolated` keeps even a single worker in a process of its own, where the system has those: what takes that process
    down, or keeps it busy in one long call, leaves this one alive and answering. After `stall_timeout` seconds in which
    a worker of this machine uses no processor time it is given up, as if it had died; None waits for ever.

    With `digest` the report has the SHA-256 of every local file, computed beside the measuring; with `full_paths` the
    whole path of a local target, else its last part; `name` is what to call the target in words.
    """

    workers: int = field(default_factory=usual_workers)
    engine: Literal["local", "ray"] = "local"
    part: Part = field(default_factory=Part)
    isolated: bool = False
    stall_timeout: float | None = None
    digest: bool = False
    full_paths: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError("--workers must be at least 1", remedy="Leave it out to use every core")
        if self.workers > MOST_WORKERS:
            raise UsageError(f"--workers must be at most {MOST_WORKERS:,}", remedy="Leave it out to use every core")
        if self.workers > 1 and self.engine == "local" and not HAS_WORKERS:
            raise UsageError("--workers is at most 1 on this system", remedy="Leave it out, or run llmtrap under WSL")
        if self.stall_timeout is not None and not 0 < self.stall_timeout <= MOST_SECONDS:
            remedy = "Give seconds, at most a year of them, or leave it out to wait"
            raise UsageError("--stall-timeout must be more than 0", remedy=remedy)
