"""Whole audits of one layer on a CUDA device and on the cores of its machine: `python -m benchmarks.gpu`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrap.audit import AuditRun, AuditSettings, Finished, RunOptions
from llmtrap.checkpoint import open_checkpoint
from llmtrap.report.document import Report

WORKERS = (1, 4)


@dataclass(frozen=True)
class WholeAudit:
    """One audit by the clock, start of its workers included."""

    way: str
    matrices: int
    seconds: float
    per_second: float
    traps: int
    alpha_off: float


def measure_audits(folder: Path, libraries: Sequence[str]) -> Iterator[WholeAudit]:
    """On all cores first, then on the device with 1 worker and more, and how far its α is from theirs at most."""
    cores = len(os.sched_getaffinity(0))
    seconds, reference = _audited(folder, AuditSettings(device="cpu"), RunOptions(workers=cores))
    yield _row(f"{cores} cores", reference, reference, seconds)
    for library in libraries:
        for workers in WORKERS:
            # In processes of their own whatever their number: each loads its library and its kernels.
            options = RunOptions(workers=workers, isolated=True)
            seconds, report = _audited(folder, AuditSettings(device="cuda", backend=library), options)
            yield _row(f"{library}, {workers} on the device", report, reference, seconds)


def _audited(folder: Path, settings: AuditSettings, options: RunOptions) -> tuple[float, Report]:
    checkpoint = open_checkpoint(str(folder))
    began = time.perf_counter()
    *_, last = AuditRun(checkpoint, settings, options).events()
    seconds = time.perf_counter() - began
    checkpoint.source.close()
    if not isinstance(last, Finished) or last.report is None or last.report.coverage.failed:
        raise RuntimeError(f"the audit did not measure every matrix: {last}")
    return seconds, last.report


def _row(way: str, report: Report, reference: Report, seconds: float) -> WholeAudit:
    off = [
        abs(one.alpha.value / other.alpha.value - 1)
        for one, other in zip(report.matrices, reference.matrices, strict=True)
        if one.alpha and other.alpha and one.alpha.value and other.alpha.value
    ]
    traps = sum(matrix.traps.count for matrix in report.matrices if matrix.traps)
    count = len(report.matrices)
    return WholeAudit(way, count, seconds, count / seconds, traps, max(off, default=0.0))
