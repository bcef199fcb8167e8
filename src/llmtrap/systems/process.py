"""This process: the signals that end it, its memory, and whether it can have workers."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Signals that ask a process to end: Ctrl-C, `kill`, a closed terminal."""

ALARM: int | None = getattr(signal, "SIGALRM", None)
"""The signal that wakes a thread; None where there is no such."""

HAS_WORKERS = os.name == "posix" and hasattr(signal, "pthread_sigmask")
"""Whether worker processes can be started: they are given a descriptor, and are deaf to signals while they start."""


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Hold these signals back while the block runs, and in what is started in it; where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def wake_main_thread() -> bool:
    """Send the main thread an alarm, so that it looks for signals; False where there are no alarms."""
    main = threading.main_thread().ident
    if ALARM is None or main is None or not hasattr(signal, "pthread_kill"):
        return False
    signal.pthread_kill(main, ALARM)
    return True


def address_space_limit() -> int | None:
    """Bytes of address space that this process may have (`ulimit -v`); None where no limit is set or known."""
    if resource is None:
        return None
    limit = int(resource.getrlimit(resource.RLIMIT_AS)[0])
    return None if limit == resource.RLIM_INFINITY else limit


def peak_rss_bytes() -> int:
    """The most resident memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if resource is not None:
        used = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return used if sys.platform == "darwin" else used * 1024
    import psutil  # noqa: PLC0415 - where nothing else tells

    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def own_mapping(size: int) -> mmap.mmap:
    """New memory that goes back to the system as soon as it is dropped."""
    if hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def return_freed_memory() -> None:
    """Give memory that is free within this process back to the system; where the C library does not, nothing.

    glibc keeps freed blocks of up to 32 MiB each for later use, and a hole between two that are in use stays.
    """
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@cache
def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if os.name == "posix" else None
