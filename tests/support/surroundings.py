"""What tests must not inherit from whoever runs them: one environment for every machine, shell and CI service."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CALLERS = dict(os.environ)
"""The caller's own environment, for what has to use it: downloads (proxies, an index's address) and their cache."""

# Removed, each by how its name begins, with what it would change.
NOT_INHERITED = {
    "LLMTRAP_": "stands for options of every command",
    "RAY_": "names a cluster, or how a local one is started",
    "HF_": "moves the hub's cache, its address, its token",
    "HUGGING": "the hub's older names for the same",
    "XDG_": "moves journals and caches",
    "FORCE_COLOR": "Rich colours and wraps what goes into a pipe",
    "CLICOLOR": "the same for others",
    "NO_COLOR": "Rich leaves out colours on a terminal",
    "TTY_": "Rich takes a pipe for a terminal",
    "COLUMNS": "the width that lines are wrapped at",
    "LINES": "the height of a terminal",
    "LC_": "the language of messages and what bytes a letter is",
    "LANG": "the same",
    "CI": "programs say less, or more, in a CI service",
    "GITHUB_": "the gate writes what GitHub Actions shows",
    "GITLAB_": "the same of GitLab",
    "PRE_COMMIT": "the same of pre-commit",
    "PYTHONWARNINGS": "warnings become errors, or vanish",
    "PYTHONSTARTUP": "runs code of the caller's",
    "PYTHONIOENCODING": "what bytes a letter is in a pipe",
    "PYTHONUTF8": "the same",
    "PYTHONHASHSEED": "the order of sets, which no output may depend on",
    "SOURCE_DATE_EPOCH": "the times in what is built",
    "TZ": "the hour of a time",
}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")
"""Requests to the tests' own servers on this machine would go to a proxy, by either spelling."""


@contextmanager
def plain_surroundings(home: Path) -> Iterator[None]:
    """Set the environment of a plain terminal: an English UTF-8 locale, no colours asked for, an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(tuple(NOT_INHERITED)) or name.lower() in PROXIES:
                patch.delenv(name)
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.setenv("TZ", "UTC")
        patch.setenv("TERM", "xterm-256color")  # `dumb` and none have no colours
        patch.setenv("HOME", str(home))  # settings and caches of the user's programs
        for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(threads, "1")  # several on busy cores are many times slower
        time.tzset()
        yield
    time.tzset()


def hear_signals() -> None:
    """Give signals that the caller ignores (`nohup`, a job in the background) back to the programs that tests start.

    An ignored signal stays ignored in what is started; one with a handler gets its default there. This process itself
    goes on ignoring it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
