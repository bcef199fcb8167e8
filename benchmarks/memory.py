"""Peak memory of a command and all its children, as Linux counts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class PeakMemory:
    """Peaks of a process tree, in bytes.

    `high_water` is the sum over processes of VmHWM, mapped file pages included; `anonymous` the greatest sum of RssAnon
    seen at one moment, which is what cannot be given back; `largest` the greatest VmHWM of one process; `processes` the
    greatest number seen.
    """

    high_water: int
    anonymous: int
    largest: int
    processes: int
    seconds: float


def run_measured(command: Sequence[str]) -> PeakMemory:
    """Run a command to its end and watch its memory.

    Raises:
        RuntimeError: the command failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        high_water: dict[int, int] = {}
        anonymous = processes = 0
        while process.poll() is None:
            statuses = {pid: status for pid in _tree(process.pid) if (status := _status(pid))}
            for pid, status in statuses.items():
                high_water[pid] = max(high_water.get(pid, 0), status.get("VmHWM", 0))
            anonymous = max(anonymous, sum(status.get("RssAnon", 0) for status in statuses.values()))
            processes = max(processes, len(statuses))
            time.sleep(INTERVAL_SECONDS)
        seconds = time.perf_counter() - began
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return PeakMemory(sum(high_water.values()), anonymous, max(high_water.values(), default=0), processes, seconds)


def _tree(root: int) -> list[int]:
    """The process and all its descendants that still live."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended while we looked
    return found


def _status(pid: int) -> dict[str, int]:
    """The memory lines of /proc/PID/status, in bytes; empty once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines if line.startswith(("VmHWM:", "RssAnon:")))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in pairs}
