"""Measure what the judgement needs, and no more: changed matrices of both sides, and the updates between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmtrap.audit import AuditRun, AuditSettings, Failed, Finished, Measured, RunOptions, journal_for
from llmtrap.checkpoint import Checkpoint
from llmtrap.report.document import Report, Settings

# Below this much work a pool of processes costs more than it saves.
ALONE_SECONDS = 4.0

Observer = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much: `measuring the target`, 3, 12."""


@dataclass(frozen=True)
class GateOptions:
    """How a gate runs; nothing here changes the judgement.

    `journal` is the folder where measurements are kept, so that the base is measured once; None keeps none.
    """

    workers: int = field(default_factory=lambda: RunOptions().workers)
    device: str = "auto"
    backend: str = "auto"
    journal: Path | None = None
    fresh: bool = False
    revision: str | None = None
    base_revision: str | None = None
    observe: Observer | None = None

    def tell(self, what: str, done: int, of: int) -> None:
        """Tell the observer, if there is one."""
        if self.observe is not None:
            self.observe(what, done, of)


def settings_like(report: Settings | None, options: GateOptions) -> AuditSettings:
    """The settings of a report on the other side, so that the two can be compared; else the audit's defaults."""
    if report is None:
        return AuditSettings(device=options.device, backend=options.backend)
    return AuditSettings(
        traps=report.traps, trap_rule=report.trap_rule, alpha=report.alpha, include=report.include,
        exclude=report.exclude, split_fused=report.split_fused, shuffles=report.shuffles, seed=report.seed,
        device=options.device, backend=options.backend,
    )  # fmt: skip


def measure(
    checkpoint: Checkpoint, ids: Iterable[str], settings: AuditSettings, options: GateOptions, what: str
) -> Report:
    """Audit some matrices of a checkpoint.

    Args:
        checkpoint: the whole.
        ids: the matrices to measure.
        settings: what to measure of them.
        options: how to run.
        what: words for the observer.
    """
    wanted = set(ids)
    part = replace(checkpoint, matrices=tuple(m for m in checkpoint.matrices if m.id in wanted))
    kept = None if options.journal is None else journal_for(checkpoint, options.journal)
    if kept is not None and options.fresh:
        kept.forget()
    cost = AuditRun(part, settings, RunOptions(workers=1)).plan.core_seconds
    workers = 1 if cost < ALONE_SECONDS else max(1, min(options.workers, len(part.matrices)))
    events = AuditRun(part, settings, RunOptions(workers=workers), kept).events()
    done = 0
    try:
        for event in events:
            if isinstance(event, (Measured, Failed)):
                done += 1
                options.tell(what, done, len(part.matrices))
            elif isinstance(event, Finished) and event.report is not None:
                return event.report
    finally:
        events.close()
    raise RuntimeError("the audit ended without a report")
