"""Whether a process has come to a stand: it is at work on something and uses no processor time at all.

Time alone says nothing, since an eigensolver may take minutes in one call; but it uses the processor all the while. A
process that was stopped, or reads from a file system that does not answer, does not.
"""

from __future__ import annotations

import time

import psutil

NOTICED_SECONDS = 30.0
"""From then on it is worth a line."""

_LOOK_SECONDS = 1.0
"""It is not looked at more often."""

_WAITS_FOR = {
    psutil.STATUS_STOPPED: "it was stopped: 'kill -CONT {pid}' lets it go on",
    psutil.STATUS_TRACING_STOP: "a debugger holds it",
    psutil.STATUS_DISK_SLEEP: "it waits for a disk or a network file system",
}


class StallMonitor:
    """Watches one process; `seconds` is asked for now and then."""

    def __init__(self, pid: int):
        self._pid = pid
        self._used = -1.0
        self._since = self._looked = time.monotonic()

    def begin(self) -> None:
        """It was given something to do now."""
        self._since = time.monotonic()

    def seconds(self) -> float:
        """For how long it has used no processor time, as far as was seen; 0 where that cannot be told."""
        now = time.monotonic()
        if now - self._since < _LOOK_SECONDS or now - self._looked < _LOOK_SECONDS:
            return now - self._since if self._used >= 0 else 0.0
        self._looked = now
        try:
            times = psutil.Process(self._pid).cpu_times()
        except psutil.Error:
            return 0.0
        used = times.user + times.system
        if used != self._used:
            self._used, self._since = used, now
        return now - self._since

    def reason(self) -> str:
        """What it waits for, in words."""
        try:
            status = psutil.Process(self._pid).status()
        except psutil.Error:
            status = ""
        return _WAITS_FOR.get(status, "it waits for something").format(pid=self._pid)
